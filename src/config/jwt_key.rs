//! The key that signs a bot's JWTs. The reader of the configuration tries each key with this code, so `check-config` finds
//! what would fail at the start.

use aws_lc_rs::signature::RsaKeyPair;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use secrecy::{ExposeSecret as _, SecretString};

use super::JwtAlgorithm;
use super::pem::with_line_ends;

impl JwtAlgorithm {
    /// Returns the name in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs512 => "HS512",
            Self::Rs256 => "RS256",
            Self::Rs512 => "RS512",
        }
    }
}

/// Reason why a bot's key cannot sign. The texts do not quote the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJwtKey {
    /// HS256 or HS512 with an empty secret.
    #[error("the client secret is empty")]
    EmptySecret,
    /// RS256 or RS512 with text that has no PEM block.
    #[error("the client secret is not PEM (`-----BEGIN PRIVATE KEY-----`), which RS256 and RS512 need")]
    NotPem,
    /// A public key or a certificate.
    #[error("the client secret is a public key or certificate; RS256 and RS512 sign with its private key")]
    PublicKey,
    /// A private key with a passphrase.
    #[error("the private key is encrypted; decrypt it: openssl pkey -in KEY -out DECRYPTED")]
    EncryptedKey,
    /// A private key of another kind, or in another form.
    #[error("the private key is no RSA key in PKCS#1 or PKCS#8, which RS256 and RS512 need")]
    OtherKey,
    /// A PEM block that has no end or cannot be decoded.
    #[error(
        "the private key is cut off or damaged; copy it whole, from its `-----BEGIN` to its `-----END` line"
    )]
    DamagedKey,
    /// An RSA key of a length that does not sign.
    #[error("the private RSA key is too short or too long; it needs 2048 to 8192 bits")]
    KeyLength,
}

/// Returns the header and the key of a bot's JWTs, after a signature to try them.
///
/// # Errors
/// [`InvalidJwtKey`]; change `client_secret` or `algorithm` of the bot.
pub fn jwt_key(
    algorithm: JwtAlgorithm,
    secret: &SecretString,
) -> Result<(Header, EncodingKey), InvalidJwtKey> {
    let secret = secret.expose_secret();
    let (algorithm, key) = match algorithm {
        JwtAlgorithm::Hs256 => (Algorithm::HS256, shared_key(secret)?),
        JwtAlgorithm::Hs512 => (Algorithm::HS512, shared_key(secret)?),
        JwtAlgorithm::Rs256 => (Algorithm::RS256, rsa_key(secret)?),
        JwtAlgorithm::Rs512 => (Algorithm::RS512, rsa_key(secret)?),
    };
    let header = Header::new(algorithm);
    match jsonwebtoken::encode(&header, &serde_json::Map::new(), &key) {
        Ok(_) => Ok((header, key)),
        Err(_) => Err(InvalidJwtKey::DamagedKey),
    }
}

fn shared_key(secret: &str) -> Result<EncodingKey, InvalidJwtKey> {
    if secret.is_empty() {
        return Err(InvalidJwtKey::EmptySecret);
    }
    Ok(EncodingKey::from_secret(secret.as_bytes()))
}

fn rsa_key(text: &str) -> Result<EncodingKey, InvalidJwtKey> {
    let text = with_line_ends(text);
    let block = private_block(&text)?;
    let rejected = match PrivateKeyDer::from_pem_slice(block.as_bytes()) {
        Ok(PrivateKeyDer::Pkcs1(der)) => RsaKeyPair::from_der(der.secret_pkcs1_der()).err(),
        Ok(PrivateKeyDer::Pkcs8(der)) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).err(),
        Ok(_) => return Err(InvalidJwtKey::OtherKey),
        Err(_) => return Err(InvalidJwtKey::DamagedKey),
    };
    match rejected.map(|rejected| rejected.to_string()).as_deref() {
        None => EncodingKey::from_rsa_pem(block.as_bytes()).map_err(|_| InvalidJwtKey::DamagedKey),
        Some("TooSmall" | "TooLarge") => Err(InvalidJwtKey::KeyLength),
        Some("WrongAlgorithm") => Err(InvalidJwtKey::OtherKey),
        Some(_) => Err(InvalidJwtKey::DamagedKey),
    }
}

/// Returns the first private key of the text, from `-----BEGIN` to the end of `-----END`.
fn private_block(text: &str) -> Result<&str, InvalidJwtKey> {
    let mut other = InvalidJwtKey::NotPem;
    for (start, _) in text.match_indices("-----BEGIN ") {
        let block = text.get(start..).unwrap_or_default();
        let label = block.get("-----BEGIN ".len()..).and_then(|rest| rest.split_once("-----"));
        let Some((label, _)) = label else { return Err(InvalidJwtKey::DamagedKey) };
        match label {
            "PRIVATE KEY" | "RSA PRIVATE KEY" => {
                let end = format!("-----END {label}-----");
                let Some((before, _)) = block.split_once(&end) else { return Err(InvalidJwtKey::DamagedKey) };
                if before.contains(": 4,ENCRYPTED") {
                    return Err(InvalidJwtKey::EncryptedKey);
                }
                return Ok(block.get(..before.len() + end.len()).unwrap_or(block));
            }
            "ENCRYPTED PRIVATE KEY" => return Err(InvalidJwtKey::EncryptedKey),
            "PUBLIC KEY" | "RSA PUBLIC KEY" | "CERTIFICATE" => other = InvalidJwtKey::PublicKey,
            _ if label.ends_with("PRIVATE KEY") => return Err(InvalidJwtKey::OtherKey),
            _ => {}
        }
    }
    Err(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIVATE: &str = include_str!("../../tests/fixtures/rsa.pem");
    const PUBLIC: &str = include_str!("../../tests/fixtures/rsa.public.pem");
    const CERTIFICATE: &str = include_str!("../../tests/fixtures/tls.pem");
    /// An elliptic curve key.
    const CURVE: &str = include_str!("../../tests/fixtures/tls.key.pem");
    const SHORT: &str = include_str!("../../tests/fixtures/rsa.1024.pem");
    const ENCRYPTED: &str = include_str!("../../tests/fixtures/rsa.encrypted.pem");
    const TRADITIONAL: &str = include_str!("../../tests/fixtures/rsa.pkcs1.pem");

    fn tried(algorithm: JwtAlgorithm, secret: &str) -> Result<(), InvalidJwtKey> {
        jwt_key(algorithm, &secret.into()).map(drop)
    }

    #[test]
    fn private_rsa_key_in_any_usual_form_signs() {
        let two_characters = PRIVATE.replace('\n', "\\n");
        let windows = PRIVATE.replace('\n', "\r\n");
        let bundle = format!("{CERTIFICATE}{PRIVATE}");
        let commented = format!("Bag Attributes\n    friendlyName: x\n{PRIVATE}");
        for key in [PRIVATE, TRADITIONAL, &two_characters, &windows, &bundle, &commented, PRIVATE.trim_end()]
        {
            for algorithm in [JwtAlgorithm::Rs256, JwtAlgorithm::Rs512] {
                assert_eq!(tried(algorithm, key), Ok(()), "{}", &key[..40]);
            }
        }
        assert_eq!(tried(JwtAlgorithm::Hs256, r"a\nb"), Ok(()));
    }

    #[test]
    fn unusable_key_is_refused_with_its_cause() {
        use InvalidJwtKey as E;
        let cut = &PRIVATE[..PRIVATE.len() / 2];
        let without_middle = PRIVATE.lines().enumerate().filter(|(line, _)| *line != 5);
        let without_middle: String = without_middle.flat_map(|(_, line)| [line, "\n"]).collect();
        let proc_type = PRIVATE.replacen('\n', "\nProc-Type: 4,ENCRYPTED\n", 1);
        for (key, cause) in [
            ("not a key", E::NotPem),
            ("", E::NotPem),
            (PUBLIC, E::PublicKey),
            (CERTIFICATE, E::PublicKey),
            (ENCRYPTED, E::EncryptedKey),
            (&proc_type, E::EncryptedKey),
            (CURVE, E::OtherKey),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n", E::OtherKey),
            (cut, E::DamagedKey),
            (PRIVATE.trim_end().trim_end_matches('-'), E::DamagedKey),
            (&without_middle, E::DamagedKey),
            ("-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n", E::DamagedKey),
            ("-----BEGIN PRIVATE KEY", E::DamagedKey),
            (SHORT, E::KeyLength),
        ] {
            assert_eq!(tried(JwtAlgorithm::Rs256, key), Err(cause), "{key}");
        }
        assert_eq!(tried(JwtAlgorithm::Hs512, ""), Err(E::EmptySecret));
    }
}
