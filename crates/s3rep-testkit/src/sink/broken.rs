//! The ways in which a sink breaks its promises that the suite is proved to see.

/// One broken promise of a [`MemorySink`](super::MemorySink). Each is a bug that a driver somewhere shipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
    /// Integers go through a double, and `expected` says that they should.
    AgreesWithItself,
    /// The cursor is stored first and the rows in a transaction of their own: a call that ends between the two
    /// loses them.
    CursorBeforeRows,
    /// An earlier batch that comes back takes the cursor back with it.
    MovesCursorBack,
    /// The second try of a parked change is taken for a replay.
    SkipsParked,
    /// The offsets of a log that is gone count in the next one.
    KeepsCursorsOfOtherLog,
    /// A row keeps the members that its next version lacks.
    MergesMembers,
    /// All replicators move one cursor.
    SharesCursors,
}

impl Bug {
    /// Every bug.
    pub const ALL: &[Self] = &[
        Self::DropsLastChange,
        Self::DoublesOnReplay,
        Self::LosesDelete,
        Self::LosesUpdateOfAbsentRow,
        Self::ForgetsCursor,
        Self::ChangesValue,
        Self::IgnoresFence,
        Self::LeaksValue,
        Self::HidesRejection,
        Self::WritesBesideRejected,
        Self::FoldsCase,
        Self::OrdersByUtf16,
        Self::AgreesWithItself,
        Self::CursorBeforeRows,
        Self::MovesCursorBack,
        Self::SkipsParked,
        Self::KeepsCursorsOfOtherLog,
        Self::MergesMembers,
        Self::SharesCursors,
    ];
}
