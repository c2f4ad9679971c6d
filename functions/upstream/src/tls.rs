//! Which certificates the upstream may have.

use std::{error::Error, fs, sync::Arc};

use rustls::{
    CipherSuite, ClientConfig, RootCertStore,
    client::Resumption,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use tracing::warn;

use crate::settings::CaFile;

/// How the first line of a certificate begins. The rest of it may be wrong.
const BEGIN: &str = "-----BEGIN CERTIFICATE";

/// Trusts the certificates in `ca_file`, or else Mozilla's, which are compiled in.
///
/// # Errors
///
/// If no certificate in `ca_file` can be used. Names the file and what is wrong with it.
pub(crate) fn config(ca_file: Option<&CaFile>) -> Result<ClientConfig, Box<dyn Error + Send + Sync>> {
    let roots = match ca_file {
        None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
        Some(file) => roots(file).map_err(|wrong| format!("the file of {file} {wrong}"))?,
    };
    let mut provider = ring::default_provider();
    // Its keys are derived with SHA-256, for which processors have instructions. rustls prefers AES-256 with SHA-384.
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    let config = ClientConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions()?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    // All connections are to one server, and rustls keeps eight tickets of each.
    config.resumption = Resumption::in_memory_sessions(8);
    Ok(config)
}

/// The certificates in `file`, or what is wrong with it. One that cannot be used must not take the others away.
fn roots(file: &CaFile) -> Result<RootCertStore, String> {
    let bytes = fs::read(&file.path).map_err(|error| format!("cannot be read: {error}"))?;
    // A byte order mark hides the line that begins with it. Files that were joined have some in the middle.
    let text = String::from_utf8_lossy(&bytes).replace('\u{feff}', "");
    let mut roots = RootCertStore::empty();
    let mut faults = Vec::new();
    for (at, rest) in text.split(BEGIN).skip(1).enumerate() {
        let lines: Vec<&str> = rest.lines().map(str::trim).collect();
        let pem = [BEGIN, &lines.join("\n")].concat();
        let fault = match CertificateDer::from_pem_slice(pem.as_bytes()).map(|certificate| roots.add(certificate)) {
            Ok(Ok(())) => continue,
            Ok(Err(_)) => "it is no X.509 certificate",
            Err(_) => "its PEM is malformed or cut",
        };
        faults.push(format!("certificate {} cannot be used: {fault}", at + 1));
    }
    match (&*faults, &*bytes) {
        ([], _) if !roots.is_empty() => {}
        ([first, ..], _) if !roots.is_empty() => {
            warn!("the file of {file} has {} certificates that are skipped: {first}", faults.len());
        }
        ([first, ..], _) => return Err(format!("has no certificate that can be used: {first}")),
        (_, []) => return Err("is empty".to_owned()),
        (_, [0x30, 0x80..=0xff, ..]) => {
            return Err("is in DER: `openssl x509 -inform der` converts a certificate to PEM".to_owned());
        }
        (_, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) => return Err("is in UTF-16: save it as UTF-8".to_owned()),
        _ => return Err(format!("has no certificate in PEM, which begins with `{BEGIN}-----`")),
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use testbed::upstream::{Certificate, Upstream};

    use super::*;

    /// A certificate in PEM, and the number of roots in a file with these bytes, or what is wrong with it.
    fn read(name: &str, bytes: impl Fn(&str) -> Vec<u8>) -> Result<usize, String> {
        let upstream = Upstream::start_tls(Certificate::Valid);
        let good = fs::read_to_string(upstream.ca_file().unwrap()).unwrap();
        let path = std::env::temp_dir().join(format!("ca-file-{name}-{}", std::process::id()));
        fs::write(&path, bytes(&good)).unwrap();
        let roots = roots(&CaFile { setting: "UPSTREAM_CA_FILE".to_owned(), path: path.clone() });
        fs::remove_file(path).unwrap();
        roots.map(|roots| roots.len())
    }

    #[tokio::test]
    async fn all_certificates_that_can_be_used_are() {
        let bad = format!("{BEGIN}-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n");
        let cut = format!("{BEGIN}-----\nbm90IGEgY2VydGlm\n");
        let garbled = format!("{BEGIN}-----\n!\n-----END CERTIFICATE-----\n");
        assert_eq!(read("one", |good| good.into()), Ok(1));
        assert_eq!(read("crlf", |good| good.replace('\n', "\r\n").into()), Ok(1));
        assert_eq!(read("bom", |good| format!("\u{feff}{good}\u{feff}{good}").into()), Ok(2));
        assert_eq!(read("indented", |good| good.replace('\n', "\n  ").into()), Ok(1));
        assert_eq!(read("comment", |good| [b"# caf\xe9\n", good.as_bytes()].concat()), Ok(1));
        let marked_wrongly = bad.replace("BEGIN CERTIFICATE-----", "BEGIN CERTIFICATE----");
        for bad in [bad, cut, garbled, marked_wrongly] {
            assert_eq!(read("bad", |good| format!("{good}{bad}{good}").into()), Ok(2), "{bad}");
            let words = read("only-bad", |_| bad.clone().into()).unwrap_err();
            assert!(
                words.starts_with("has no certificate that can be used: certificate 1 cannot be used: "),
                "{words}"
            );
        }
    }

    #[test]
    fn aes_128_is_offered_first_and_nothing_is_left_out() {
        let offered = config(None).unwrap().crypto_provider().cipher_suites.clone();
        assert_eq!(offered[0].suite(), CipherSuite::TLS13_AES_128_GCM_SHA256);
        assert!(ring::default_provider().cipher_suites.iter().all(|suite| offered.contains(suite)));
    }

    #[tokio::test]
    async fn a_file_without_certificates_is_refused_and_told_apart() {
        let utf_16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        for (bytes, words) in [
            (vec![], "is empty"),
            (b"\n".to_vec(), "has no certificate in PEM"),
            (b"-----BEGIN PRIVATE KEY-----\n".to_vec(), "has no certificate in PEM"),
            (vec![0x30, 0x82, 1, 0], "is in DER"),
            (utf_16(&format!("\u{feff}{BEGIN}")), "is in UTF-16"),
        ] {
            let refused = read("none", |_| bytes.clone()).unwrap_err();
            assert!(refused.starts_with(words), "{refused}");
        }
        let missing = CaFile { setting: "UPSTREAM_CA_FILE".to_owned(), path: PathBuf::from("/missing.pem") };
        let refused = config(Some(&missing)).unwrap_err().to_string();
        assert!(refused.starts_with("the file of UPSTREAM_CA_FILE (/missing.pem) cannot be read: "), "{refused}");
        let folder = CaFile { setting: "SSL_CERT_FILE".to_owned(), path: PathBuf::from("/") };
        assert!(config(Some(&folder)).unwrap_err().to_string().starts_with("the file of SSL_CERT_FILE (/) cannot be"));
    }
}
