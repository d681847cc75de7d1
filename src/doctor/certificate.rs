//! Reads names and dates of a certificate (X.509, DER), for messages to people. Pure.
//!
//! The TLS library judges certificates, and does not tell whose they are. An unreadable part is left out.

/// The facts of a certificate that an operator knows it by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct CertificateFacts {
    /// The common name of the issuer, or its organisation.
    pub(super) issuer: Option<String>,
    /// The end of its validity in UTC, such as `2026-11-30T23:59:59`.
    pub(super) expires: Option<String>,
}

/// The object identifiers of a common name (2.5.4.3) and an organisation (2.5.4.10).
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ORGANISATION: &[u8] = &[0x55, 0x04, 0x0a];

const UTC_TIME: u8 = 0x17;

impl CertificateFacts {
    /// Returns the issuer for a sentence.
    pub(super) fn issuer(&self) -> String {
        self.issuer.as_ref().map_or_else(|| "an unnamed authority".to_owned(), |name| format!("\"{name}\""))
    }

    /// Returns the last day of its validity for a sentence.
    pub(super) fn day(&self) -> &str {
        self.expires.as_ref().and_then(|time| time.get(..10)).unwrap_or("an unknown day")
    }

    /// Returns whether it has expired at `now`, a time in RFC 3339 and UTC.
    pub(super) fn has_expired(&self, now: &str) -> bool {
        self.expires.as_ref().is_some_and(|expires| expires.as_str() < now)
    }

    /// Reads a certificate.
    pub(super) fn read(certificate: &[u8]) -> Self {
        Self::try_read(certificate).unwrap_or_default()
    }

    fn try_read(certificate: &[u8]) -> Option<Self> {
        let mut outer = DerReader(certificate);
        let mut whole = DerReader(outer.next()?.1);
        let mut fields = DerReader(whole.next()?.1);
        // The version is optional. Serial number and signature algorithm follow it.
        let (tag, _) = fields.next()?;
        if tag != 0x02 {
            fields.next()?;
        }
        fields.next()?;
        let (_, issuer) = fields.next()?;
        let (_, validity) = fields.next()?;
        let mut validity = DerReader(validity);
        validity.next()?;
        Some(Self { issuer: name(issuer), expires: validity.next().and_then(time) })
    }
}

/// Returns the common name of a distinguished name, or the organisation.
fn name(sets: &[u8]) -> Option<String> {
    let find = |wanted: &[u8]| {
        let mut sets = DerReader(sets);
        std::iter::from_fn(|| sets.next()).find_map(|(_, set)| {
            let (_, pair) = DerReader(set).next()?;
            let mut pair = DerReader(pair);
            let (_, kind) = pair.next()?;
            let (_, text) = pair.next()?;
            (kind == wanted).then(|| String::from_utf8_lossy(text).chars().take(80).collect())
        })
    };
    find(COMMON_NAME).or_else(|| find(ORGANISATION))
}

/// Returns a time as RFC 3339 writes it: `YYMMDDHHMMSSZ`, or `YYYYMMDDHHMMSSZ` after 2049.
fn time((tag, text): (u8, &[u8])) -> Option<String> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.is_ascii())?;
    let (year, rest) = text.split_at_checked(if tag == UTC_TIME { 2 } else { 4 })?;
    let year = match (tag, year.parse::<u16>().ok()?) {
        (UTC_TIME, year @ 50..) => 1900 + year,
        (UTC_TIME, year) => 2000 + year,
        (_, year) => year,
    };
    let part = |at: usize| rest.get(at..at + 2);
    Some(format!("{year}-{}-{}T{}:{}:{}", part(0)?, part(2)?, part(4)?, part(6)?, part(8)?))
}

/// A reader of elements one after the other.
struct DerReader<'a>(&'a [u8]);

impl<'a> DerReader<'a> {
    /// Returns the tag and the content of the next element.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let [tag, length, rest @ ..] = self.0 else { return None };
        let (length, rest) = match *length {
            short @ 0..=0x7f => (usize::from(short), rest),
            0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
            0x82 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), rest.get(2..)?),
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, content))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    use super::*;

    #[test]
    fn issuer_and_expiry_are_read() {
        let pem: &[u8] = include_bytes!("../../tests/fixtures/tls/server.crt");
        let facts = CertificateFacts::read(&CertificateDer::from_pem_slice(pem).unwrap());
        assert_eq!((&*facts.issuer(), facts.day()), ("\"rtm-bridge test CA\"", "2126-10-30"));
        assert!(
            !facts.has_expired("2126-10-30T03:29:46.999Z") && facts.has_expired("2126-10-30T03:29:48.000Z")
        );
    }

    #[test]
    fn years_of_both_time_forms_are_read() {
        assert_eq!(time((UTC_TIME, b"261130235958Z")).as_deref(), Some("2026-11-30T23:59:58"));
        assert_eq!(time((UTC_TIME, b"991231235959Z")).as_deref(), Some("1999-12-31T23:59:59"));
        assert_eq!(time((0x18, b"20500101000000Z")).as_deref(), Some("2050-01-01T00:00:00"));
        assert_eq!(time((UTC_TIME, b"2611")), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            CertificateFacts::read(&bytes);
            CertificateFacts::read(&[&[0x30, 0x81, 0xc0], &*bytes].concat());
        }
    }
}
