//! The ways in which a sink breaks its promises that the suite is proved to see.

/// One broken promise of a [`MemorySink`](super::MemorySink). Each is a bug that a driver somewhere shipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The last change of a batch never arrives.
    DropsLastChange,
    /// A batch that comes back is appended a second time.
    DoublesOnReplay,
    /// Deletes are taken and not done.
    LosesDelete,
    /// An update of a row that is not there is lost.
    LosesUpdateOfAbsentRow,
    /// Rows are stored and the cursor is not.
    ForgetsCursor,
    /// Integers go through a double.
    ChangesValue,
    /// An owner that was replaced writes on.
    IgnoresFence,
    /// The text of an error contains the record.
    LeaksValue,
    /// A record that cannot be written disappears as if it had been taken.
    HidesRejection,
    /// A batch with a rejected record is written in part and its cursor moves: a crash then loses the record.
    WritesBesideRejected,
    /// Keys that differ by case are one row.
    FoldsCase,
    /// Rows are read back in the order of UTF-16 units.
    OrdersByUtf16,
}
