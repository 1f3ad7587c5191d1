//! Lock objects (placeholder until the real one lands).

use s3rep_core::{Context, Result};

use crate::store::ObjectStore;

pub(crate) struct ObjectLock;

impl ObjectLock {
    pub(crate) async fn release(self, _: &dyn ObjectStore, _: &Context) -> Result<()> {
        Ok(())
    }
}

pub(crate) async fn metadata_lock(_: &dyn ObjectStore, _: &Context) -> Result<ObjectLock> {
    Ok(ObjectLock)
}
