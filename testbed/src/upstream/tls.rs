//! A CA for the duration of a test, and certificates signed by it.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use tokio_rustls::rustls::{ServerConfig, crypto::ring, pki_types::PrivatePkcs8KeyDer};

/// The certificate that an upstream presents. All are signed by the CA that the client trusts, so nothing else is
/// wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Certificate {
    /// A good one, for `localhost`, `upstream.test`, `up_stream.test` and 127.0.0.1.
    Valid,
    /// One for another host.
    WrongName,
    /// One that was good until 2021.
    Expired,
}

/// The TLS side of an upstream.
#[derive(Debug)]
pub(super) struct Tls {
    pub(super) config: Arc<ServerConfig>,
    pub(super) ca_file: PathBuf,
}

impl Tls {
    /// `port` keeps the files of several upstreams apart.
    pub(super) fn new(certificate: Certificate, port: u16) -> Self {
        let ca_file = std::env::temp_dir().join(format!("upstream-ca-{}-{port}.pem", std::process::id()));
        fs::write(&ca_file, CA.pem()).expect("the temporary directory is writable");
        Self { config: Arc::new(server_config(certificate).expect("a certificate that we made")), ca_file }
    }
}

static CA: LazyLock<CertifiedIssuer<'static, KeyPair>> = LazyLock::new(|| {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "the CA of a test");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(params, key).expect("a certificate of our own making")
});

fn server_config(certificate: Certificate) -> Result<ServerConfig, Box<dyn std::error::Error>> {
    let (names, last_year) = match certificate {
        Certificate::Valid => (vec!["localhost", "upstream.test", "up_stream.test", "127.0.0.1"], 2120),
        Certificate::WrongName => (vec!["wrong.example", "127.0.0.2"], 2120),
        Certificate::Expired => (vec!["localhost", "127.0.0.1"], 2020),
    };
    let mut params = CertificateParams::new(names.into_iter().map(String::from).collect::<Vec<_>>())?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(last_year, 12, 31);
    let key = KeyPair::generate()?;
    let signed = params.signed_by(&key, &CA)?;

    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![signed.into()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
