//! The vendor's own client, for what s3rep does not do.

use std::sync::Arc;

use aws_sdk_s3::{
    Client,
    config::{BehaviorVersion, Builder, Credentials, Region},
};

use super::{Missing, S3Server, moto, radosgw};

/// One server that speaks S3 of each kind, by name, with a bucket.
///
/// # Panics
/// When the bucket cannot be made.
pub async fn start_s3(bucket: &str) -> Vec<(&'static str, Result<Arc<S3Server>, Missing>)> {
    let (moto, radosgw) = tokio::join!(moto::start(), radosgw::start());
    let servers = vec![("moto", moto.map(Arc::new)), ("radosgw", radosgw.map(Arc::new))];
    for (_, server) in &servers {
        if let Ok(server) = server {
            server.create_bucket(bucket).await;
        }
    }
    servers
}

impl S3Server {
    /// A client of the server.
    pub fn client(&self) -> Client {
        let config = Builder::new()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .region(Region::from_static("us-east-1"))
            .endpoint_url(&self.endpoint)
            .force_path_style(true)
            .credentials_provider(Credentials::new(self.access_key, self.secret_key, None, None, "test"));
        Client::from_conf(config.build())
    }

    /// Makes a bucket.
    ///
    /// # Panics
    /// When the server refuses it.
    pub async fn create_bucket(&self, bucket: &str) {
        if let Err(error) = self.client().create_bucket().bucket(bucket).send().await {
            panic!("{}: {error:?}: {}", self.name, self.output());
        }
    }
}
