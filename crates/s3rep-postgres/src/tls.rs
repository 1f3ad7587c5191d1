//! Encryption of the connection: rustls with ring.

use std::{fs, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use s3rep_core::{Result, Secret};
use serde::Deserialize;

use crate::config::invalid;

/// `ssl`: true, false, or how.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum SslOptions {
    /// Encrypted, with a certificate that the system trusts; or not encrypted.
    Switch(bool),
    /// Encrypted, and how.
    Files(SslFiles),
}

/// `ssl` as an object. Each file is a path, or the PEM text itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SslFiles {
    /// Whether the server's certificate has to be valid. Default true. With false the connection is encrypted, and
    /// whoever stands in between can read it.
    pub reject_unauthorized: bool,
    /// Certificates of authorities to trust instead of the system's.
    pub ca: Option<String>,
    /// The client's certificate.
    pub cert: Option<String>,
    /// The key of the client's certificate.
    pub key: Option<Secret>,
}

impl Default for SslFiles {
    fn default() -> Self {
        Self { reject_unauthorized: true, ca: None, cert: None, key: None }
    }
}

impl SslOptions {
    pub(crate) fn is_on(&self) -> bool {
        !matches!(self, Self::Switch(false))
    }

    pub(crate) fn trust(&self) -> Result<Trust> {
        match self {
            Self::Switch(_) => Ok(Trust::default()),
            Self::Files(files) => files.trust(),
        }
    }
}

impl SslFiles {
    fn trust(&self) -> Result<Trust> {
        let authorities = match &self.ca {
            Some(ca) => Some(certificates("ssl.ca", ca)?),
            None => None,
        };
        let client = match (&self.cert, &self.key) {
            (None, None) => None,
            (Some(cert), Some(key)) => {
                let pem = pem("ssl.key", key.expose())?;
                let key = PrivateKeyDer::from_pem_slice(&pem)
                    .map_err(|_| invalid("ssl.key", "it holds no private key in PEM"))?;
                Some((certificates("ssl.cert", cert)?, Arc::new(key)))
            }
            _ => return Err(invalid("ssl.cert", "a client's certificate and its key go together")),
        };
        Ok(Trust { anyone: !self.reject_unauthorized, authorities, client })
    }
}

fn pem(option: &'static str, value: &str) -> Result<Vec<u8>> {
    if value.contains("-----BEGIN") {
        return Ok(value.as_bytes().to_vec());
    }
    // The value may be a key that somebody took for a path.
    fs::read(value).map_err(|error| {
        invalid(option, format!("it is neither PEM nor a file that can be read ({})", error.kind()))
    })
}

fn certificates(option: &'static str, value: &str) -> Result<Vec<CertificateDer<'static>>> {
    let pem = pem(option, value)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|_| invalid(option, "it holds a certificate that cannot be read"))?;
    if certificates.is_empty() {
        return Err(invalid(option, "it holds no certificate in PEM"));
    }
    Ok(certificates)
}

/// Whom to trust, and who one is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust {
    anyone: bool,
    /// The system's when absent.
    authorities: Option<Vec<CertificateDer<'static>>>,
    client: Option<(Vec<CertificateDer<'static>>, Arc<PrivateKeyDer<'static>>)>,
}

impl Trust {
    /// Anyone, or those whom the system trusts.
    pub(crate) fn of(anyone: bool) -> Self {
        Self { anyone, ..Self::default() }
    }

    #[cfg(test)]
    pub(crate) fn is_of_anyone(&self) -> bool {
        self.anyone
    }

    pub(crate) fn client_config(self) -> Result<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|_| invalid("ssl", "no version of TLS is available"))?;
        let builder = if self.anyone {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        } else {
            builder.with_root_certificates(self.roots()?)
        };
        match self.client {
            None => Ok(builder.with_no_client_auth()),
            Some((chain, key)) => builder
                .with_client_auth_cert(chain, key.clone_key())
                .map_err(|_| invalid("ssl.cert", "the client's certificate and its key do not fit")),
        }
    }

    fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        match &self.authorities {
            Some(authorities) => {
                for authority in authorities {
                    roots
                        .add(authority.clone())
                        .map_err(|_| invalid("ssl.ca", "it holds a certificate that is no authority's"))?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        Ok(roots)
    }
}

/// Encrypts without a proof of who is at the other end.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
