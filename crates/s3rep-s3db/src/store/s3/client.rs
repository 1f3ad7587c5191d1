//! The client: how it connects, signs and retries, and what it sees of every answer.

use std::{
    cell::Cell,
    future::Future,
    sync::atomic::{AtomicU64, Ordering},
    sync::{Arc, OnceLock},
    time::Duration,
};

use aws_config::{default_provider::credentials::DefaultCredentialsChain, provider_config::ProviderConfig};
use aws_credential_types::Credentials;
use aws_sdk_s3::{
    Client,
    config::{
        BehaviorVersion, Builder, ConfigBag, Intercept, Region, RequestChecksumCalculation,
        ResponseChecksumValidation, RuntimeComponents, SharedHttpClient, StalledStreamProtectionConfig,
        endpoint::{DefaultResolver, Endpoint, EndpointFuture, Params, ResolveEndpoint},
        interceptors::{
            BeforeDeserializationInterceptorContextMut, BeforeTransmitInterceptorContextMut,
            BeforeTransmitInterceptorContextRef,
        },
        retry::RetryConfig,
        timeout::TimeoutConfig,
    },
    error::BoxError,
};
use aws_smithy_http_client::tls;
use aws_smithy_runtime_api::client::{interceptors::dyn_dispatch_hint, orchestrator::Metadata};
use aws_smithy_types::{DateTime, date_time::Format};
use base64::{Engine, engine::general_purpose::STANDARD};
use md5::{Digest, Md5};

use super::{Bucket, metadata};
use crate::{store::Requests, url::S3Credentials};

/// How long an idle connection is kept: some servers close theirs after a minute or less, and a request on a
/// connection that is just being closed costs a retry.
const IDLE: Duration = Duration::from_secs(15);

/// Pauses between attempts grow to this.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Two clients with one pool of connections.
pub(super) struct Clients {
    /// Tries again what can be tried again.
    pub(super) retrying: Client,
    /// Tries once, for calls whose second try means something else than the first.
    pub(super) once: Client,
}

impl Bucket {
    /// The clients, made at the first call: the default credentials chain reads files.
    pub(super) async fn clients(&self) -> &Clients {
        self.clients.get_or_init(|| self.connect()).await
    }

    async fn connect(&self) -> Clients {
        // Of two providers in the process, whichever came first stays; ours is only sure to be one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
            .pool_idle_timeout(IDLE)
            .build_https();
        let config = self.identify(self.configure(&http), &http).await;
        let retrying = RetryConfig::standard()
            .with_max_attempts(self.options.attempts.max(1))
            .with_initial_backoff(self.options.backoff)
            .with_max_backoff(LONGEST_PAUSE);
        let once = config.clone().retry_config(RetryConfig::disabled());
        Clients {
            retrying: Client::from_conf(config.retry_config(retrying).build()),
            once: Client::from_conf(once.build()),
        }
    }

    fn configure(&self, http: &SharedHttpClient) -> Builder {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(self.options.connect_timeout)
            .operation_attempt_timeout(self.options.attempt_timeout)
            .build();
        let mut config = Builder::new()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .http_client(http.clone())
            .region(Region::new(self.connection.region.clone()))
            .force_path_style(self.connection.path_style)
            .timeout_config(timeouts)
            // Bodies have the timeout of the attempt; watching their speed costs more than reading them.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            // Signatures cover headers and body already; checksums in trailers are what other servers refuse.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .endpoint_resolver(Place::default())
            .interceptor(Observer { requests: self.requests.clone() });
        if let Some(endpoint) = &self.connection.endpoint {
            config = config.endpoint_url(endpoint);
        }
        config
    }

    async fn identify(&self, config: Builder, http: &SharedHttpClient) -> Builder {
        match &self.connection.credentials {
            S3Credentials::Anonymous => config.allow_no_auth(),
            S3Credentials::Keys { access_key_id, secret_access_key, session_token } => config
                .credentials_provider(Credentials::new(
                    access_key_id.expose(),
                    secret_access_key.expose(),
                    session_token.as_ref().map(|token| token.expose().to_owned()),
                    None,
                    "connection string",
                )),
            S3Credentials::Chain => {
                let region = Region::new(self.connection.region.clone());
                let provider = ProviderConfig::without_region()
                    .with_http_client(http.clone())
                    .with_region(Some(region.clone()));
                let chain = DefaultCredentialsChain::builder().configure(provider).region(region);
                config.credentials_provider(chain.build().await)
            }
        }
    }
}

/// Where requests go, worked out once: it depends on the bucket and the region, and takes longer than a signature.
#[derive(Debug, Default)]
struct Place {
    rules: DefaultResolver,
    known: OnceLock<Endpoint>,
}

impl ResolveEndpoint for Place {
    fn resolve_endpoint<'a>(&'a self, params: &'a Params) -> EndpointFuture<'a> {
        match self.known.get() {
            Some(known) => EndpointFuture::ready(Ok(known.clone())),
            None => EndpointFuture::new(async {
                let found = ResolveEndpoint::resolve_endpoint(&self.rules, params).await?;
                Ok(self.known.get_or_init(|| found).clone())
            }),
        }
    }
}

/// Requests by class.
#[derive(Debug, Default)]
pub(super) struct Counters {
    lists: AtomicU64,
    reads: AtomicU64,
    writes: AtomicU64,
    deletes: AtomicU64,
}

impl Counters {
    pub(super) fn read(&self) -> Requests {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Requests {
            lists: read(&self.lists),
            reads: read(&self.reads),
            writes: read(&self.writes),
            deletes: read(&self.deletes),
        }
    }

    fn count(&self, operation: &str) {
        let counter = match operation {
            "ListObjectsV2" => &self.lists,
            "GetObject" | "HeadObject" => &self.reads,
            DELETE_MANY | "DeleteObject" => &self.deletes,
            _ => &self.writes,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

const DELETE_MANY: &str = "DeleteObjects";

tokio::task_local! {
    /// The `Date` of the last answer to the call that this task is making, in seconds.
    static DATE: Cell<Option<i64>>;
}

/// Makes a call, and says what time it was at the server when it answered.
pub(super) async fn dated<T>(call: impl Future<Output = T>) -> (T, Option<i64>) {
    DATE.scope(Cell::new(None), async {
        let outcome = call.await;
        (outcome, DATE.with(Cell::get))
    })
    .await
}

/// Sees every attempt: counts it, notes the server's time, and makes foreign metadata readable.
#[derive(Debug)]
struct Observer {
    requests: Arc<Counters>,
}

#[dyn_dispatch_hint]
impl Intercept for Observer {
    fn name(&self) -> &'static str {
        "s3rep"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        // Servers older than the checksums of 2022 want MD5 where AWS takes either.
        if operation(cfg) == DELETE_MANY {
            let request = context.request_mut();
            if let Some(digest) = request.body().bytes().map(|body| STANDARD.encode(Md5::digest(body))) {
                request.headers_mut().insert("content-md5", digest);
            }
        }
        Ok(())
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.requests.count(operation(cfg));
        Ok(())
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.response_mut().headers_mut();
        // Outside of `dated` nobody asks.
        let _ = DATE.try_with(|date| {
            let sent = headers.get("date").and_then(|text| DateTime::from_str(text, Format::HttpDate).ok());
            date.set(sent.map(|sent| sent.secs()));
        });
        metadata::make_readable(headers);
        Ok(())
    }
}

fn operation(cfg: &ConfigBag) -> &str {
    cfg.load::<Metadata>().map_or("", Metadata::name)
}
