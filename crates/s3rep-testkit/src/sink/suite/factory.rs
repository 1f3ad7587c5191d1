//! How a driver's test makes sinks.

use std::{any::Any, sync::Arc};

use async_trait::async_trait;
use s3rep_core::{Capability, Sink, Table};

use crate::oracle::StoredChange;

/// The hooks that a [`SinkFactory`] implements beyond those that it must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offers {
    /// [`SinkFactory::changes`].
    pub changes: bool,
    /// Its sinks have [`Sink::schema_sync`] switched on.
    pub schema_sync: bool,
    /// [`SinkFactory::open_bad`].
    pub bad_place: bool,
    /// [`SinkFactory::break_connection`] and [`SinkFactory::mend_connection`].
    pub broken_connection: bool,
    /// [`SinkFactory::make_unfit`].
    pub unfit_table: bool,
}

impl Offers {
    /// No hooks.
    pub const NOTHING: Self = Self {
        changes: false,
        schema_sync: false,
        bad_place: false,
        broken_connection: false,
        unfit_table: false,
    };
}

/// Makes sinks for the suite. Each case has a place of its own; cases run at the same time.
#[async_trait]
pub trait SinkFactory: Send + Sync + 'static {
    /// A destination: a directory, a database, a queue. Cleaned up when dropped.
    type Place: Send + Sync + 'static;

    /// What the sinks can do. The suite picks its cases by it and checks that the sinks say the same.
    fn capability(&self) -> Capability;

    /// The hooks that are implemented.
    fn offers(&self) -> Offers;

    /// Whether a secret takes the destination long: it encrypts with a key derived for each. Random records have
    /// none then.
    fn has_slow_secrets(&self) -> bool {
        false
    }

    /// Makes an empty destination.
    async fn fresh(&self) -> Self::Place;

    /// Opens a sink over a destination, with schema synchronisation where there is one. Called again over the
    /// same place after the earlier sink was dropped without [`Sink::close`]: a process that died and was
    /// started again.
    async fn open(&self, place: &Self::Place) -> Arc<dyn Sink>;

    /// Every row of an append table in the order in which the destination holds them, told apart by key,
    /// operation and change id. Called after [`Sink::flush`].
    async fn changes(&self, place: &Self::Place, table: &Table) -> Vec<StoredChange> {
        let _ = (place, table);
        Vec::new()
    }

    /// A sink whose destination is absent, unreachable or refuses its credentials.
    async fn open_bad(&self) -> Option<Arc<dyn Sink>> {
        None
    }

    /// Makes the destination unreachable for sinks that are open.
    async fn break_connection(&self, place: &Self::Place) {
        let _ = place;
    }

    /// Makes it reachable again.
    async fn mend_connection(&self, place: &Self::Place) {
        let _ = place;
    }

    /// Makes a table of that name, absent until now, that no row of its schema fits into and that schema
    /// synchronisation may not mend.
    async fn make_unfit(&self, place: &Self::Place, table: &Table) {
        let _ = (place, table);
    }
}

/// A place of a factory whose type the suite does not know, so that the cases are compiled once.
pub(super) type AnyPlace = Arc<dyn Any + Send + Sync>;

#[async_trait]
pub(super) trait Erased: Send + Sync {
    fn capability(&self) -> Capability;
    fn offers(&self) -> Offers;
    fn has_slow_secrets(&self) -> bool;
    async fn fresh(&self) -> AnyPlace;
    async fn open(&self, place: &AnyPlace) -> Arc<dyn Sink>;
    async fn changes(&self, place: &AnyPlace, table: &Table) -> Vec<StoredChange>;
    async fn open_bad(&self) -> Option<Arc<dyn Sink>>;
    async fn break_connection(&self, place: &AnyPlace);
    async fn mend_connection(&self, place: &AnyPlace);
    async fn make_unfit(&self, place: &AnyPlace, table: &Table);
}

pub(super) struct Typed<F>(pub(super) F);

impl<F: SinkFactory> Typed<F> {
    fn place<'a>(&self, place: &'a AnyPlace) -> &'a F::Place {
        place.downcast_ref().expect("a place of this factory")
    }
}

#[async_trait]
impl<F: SinkFactory> Erased for Typed<F> {
    fn capability(&self) -> Capability {
        self.0.capability()
    }
    fn offers(&self) -> Offers {
        self.0.offers()
    }
    fn has_slow_secrets(&self) -> bool {
        self.0.has_slow_secrets()
    }
    async fn fresh(&self) -> AnyPlace {
        Arc::new(self.0.fresh().await)
    }
    async fn open(&self, place: &AnyPlace) -> Arc<dyn Sink> {
        self.0.open(self.place(place)).await
    }
    async fn changes(&self, place: &AnyPlace, table: &Table) -> Vec<StoredChange> {
        self.0.changes(self.place(place), table).await
    }
    async fn open_bad(&self) -> Option<Arc<dyn Sink>> {
        self.0.open_bad().await
    }
    async fn break_connection(&self, place: &AnyPlace) {
        self.0.break_connection(self.place(place)).await;
    }
    async fn mend_connection(&self, place: &AnyPlace) {
        self.0.mend_connection(self.place(place)).await;
    }
    async fn make_unfit(&self, place: &AnyPlace, table: &Table) {
        self.0.make_unfit(self.place(place), table).await;
    }
}
