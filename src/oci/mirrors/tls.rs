//! Reads the certificates and keys that a host's entry names.

use std::path::Path;
use std::time::Duration;

use openssl::pkey::PKey;
use openssl::x509::X509;
use reqwest::{Certificate, Identity};

use super::hosts_toml::TlsFiles;
use crate::oci::files::Files;
use crate::oci::registry::EndpointTls;

/// Reads the files; the error names one and says what is wrong, without its content.
pub(super) fn read(
    named: &TlsFiles,
    connect_timeout: Option<Duration>,
    files: &mut Files,
) -> Result<EndpointTls, String> {
    let mut authorities = Vec::new();
    for path in &named.authorities {
        let pem = bytes(files, path)?;
        let found = Certificate::from_pem_bundle(&pem).map_err(|_| refused(path, "is not valid PEM"))?;
        if found.is_empty() {
            return Err(refused(path, "holds no certificate in PEM form"));
        }
        authorities.extend(found);
    }
    let identity = match &named.client {
        None => None,
        Some((certificate, key)) => Some(identity(certificate, key.as_deref(), files)?),
    };
    Ok(EndpointTls { authorities, identity, skip_verify: named.skip_verify, connect_timeout })
}

fn identity(certificate: &Path, key: Option<&Path>, files: &mut Files) -> Result<Identity, String> {
    let chain = bytes(files, certificate)?;
    let key_file = key.unwrap_or(certificate);
    let pem = match key {
        Some(path) => bytes(files, path)?,
        None => chain.clone(),
    };
    // Any form of key becomes the one that the TLS library takes. With an empty passphrase, because OpenSSL would ask the
    // terminal for that of an encrypted key.
    let no_key = |_| refused(key_file, "holds no private key in PEM form without a passphrase");
    let key = PKey::private_key_from_pem_passphrase(&pem, b"").map_err(no_key)?;
    let belongs = X509::from_pem(&chain).and_then(|first| first.public_key()).map(|own| own.public_eq(&key));
    match belongs {
        Ok(true) => {}
        Ok(false) => return Err(refused(certificate, "is not the certificate of the key")),
        Err(_) => return Err(refused(certificate, "holds no certificate in PEM form")),
    }
    let key = key.private_key_to_pem_pkcs8().map_err(no_key)?;
    Identity::from_pkcs8_pem(&chain, &key)
        .map_err(|_| refused(certificate, "and its key cannot be used for TLS"))
}

fn bytes(files: &mut Files, path: &Path) -> Result<Vec<u8>, String> {
    files.read(path).map_err(|error| refused(path, &format!("cannot be read: {error}")))
}

fn refused(path: &Path, problem: &str) -> String {
    format!("{} {problem}; correct it, or the file that names it", path.display())
}
