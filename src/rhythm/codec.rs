//! The rhythm of a bot as bytes: small, for the store.
//!
//! All numbers are little-endian. A weight is a number of 16 bits, in parts of 128. A record holds only its buckets that
//! have a weight.

use super::bot_rhythm::BotRhythm;
use super::gap_sketch::{BUCKETS, GapSketch};
use super::kind_record::KindRecord;
use super::kind_table::KindTable;
use super::reply_kind::ReplyKind;
use super::trust_levels::TrustLevels;
use crate::domain::Fingerprint;

/// The first byte. Another form gets another number.
const FORM: u8 = 1;
const PARTS: f32 = 128.0;
/// The most bytes that are read.
const MOST_BYTES: usize = 128 * 1024;

/// The error for bytes that are no rhythm, or one of a later version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stored rhythm of the bot cannot be read")]
pub struct InvalidRhythm;

impl BotRhythm {
    /// Returns the rhythm as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![FORM];
        for number in [self.turns, self.early_cuts, self.last_cut.map_or(0, |turn| turn + 1)] {
            bytes.extend(number.to_le_bytes());
        }
        for number in self.trust.turns.iter().chain(&self.trust.cuts) {
            bytes.extend(number.to_le_bytes());
        }
        write_sketch(&self.first_replies, &mut bytes);
        write_record(&self.unknown, &mut bytes);
        write_table(&self.templates, &mut bytes);
        write_table(&self.kinds, &mut bytes);
        bytes
    }

    /// Reads a rhythm.
    ///
    /// # Errors
    /// [`InvalidRhythm`] for other bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidRhythm> {
        if bytes.len() > MOST_BYTES {
            return Err(InvalidRhythm);
        }
        let mut reader = Reader(bytes);
        if reader.byte()? != FORM {
            return Err(InvalidRhythm);
        }
        let [turns, early_cuts, last_cut] = [reader.long()?, reader.long()?, reader.long()?];
        let mut trust = TrustLevels::default();
        for number in trust.turns.iter_mut().chain(&mut trust.cuts) {
            *number = reader.float()?;
        }
        let rhythm = Self {
            turns,
            early_cuts,
            last_cut: last_cut.checked_sub(1),
            trust,
            first_replies: reader.sketch()?,
            unknown: reader.record()?,
            templates: reader.table()?,
            kinds: reader.table()?,
        };
        if reader.0.is_empty() && rhythm.last_cut.is_none_or(|cut| cut <= turns) {
            Ok(rhythm)
        } else {
            Err(InvalidRhythm)
        }
    }
}

fn write_table<const MOST: usize>(table: &KindTable<MOST>, bytes: &mut Vec<u8>) {
    let count = u16::try_from(table.len()).unwrap_or(u16::MAX);
    bytes.extend(count.to_le_bytes());
    for (kind, record) in table.iter().take(count.into()) {
        bytes.extend(kind.exact.bits().to_le_bytes());
        bytes.extend(kind.template.bits().to_le_bytes());
        write_record(record, bytes);
    }
}

fn write_record(record: &KindRecord, bytes: &mut Vec<u8>) {
    bytes.extend(parts(record.ended).to_le_bytes());
    write_sketch(&record.gaps, bytes);
}

fn write_sketch(sketch: &GapSketch, bytes: &mut Vec<u8>) {
    let weights =
        || sketch.weights.iter().map(|weight| parts(*weight)).enumerate().filter(|(_, weight)| *weight > 0);
    bytes.extend(u8::try_from(weights().count()).unwrap_or_default().to_le_bytes());
    for (bucket, weight) in weights() {
        bytes.extend(u8::try_from(bucket).unwrap_or_default().to_le_bytes());
        bytes.extend(weight.to_le_bytes());
    }
}

fn parts(weight: f32) -> u16 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is clamped")]
    let parts = (weight * PARTS).round().clamp(0.0, f32::from(u16::MAX)) as u16;
    parts
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const SIZE: usize>(&mut self) -> Result<[u8; SIZE], InvalidRhythm> {
        let (taken, rest) = self.0.split_first_chunk::<SIZE>().ok_or(InvalidRhythm)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, InvalidRhythm> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn short(&mut self) -> Result<u16, InvalidRhythm> {
        self.take().map(u16::from_le_bytes)
    }

    fn long(&mut self) -> Result<u64, InvalidRhythm> {
        self.take().map(u64::from_le_bytes)
    }

    fn float(&mut self) -> Result<f32, InvalidRhythm> {
        let number = self.take().map(f32::from_le_bytes)?;
        if (0.0..1e6).contains(&number) { Ok(number) } else { Err(InvalidRhythm) }
    }

    fn sketch(&mut self) -> Result<GapSketch, InvalidRhythm> {
        let mut weights = [0.0; BUCKETS];
        for _ in 0..self.byte()? {
            let bucket = usize::from(self.byte()?);
            *weights.get_mut(bucket).ok_or(InvalidRhythm)? = f32::from(self.short()?) / PARTS;
        }
        Ok(GapSketch::of(weights))
    }

    fn record(&mut self) -> Result<KindRecord, InvalidRhythm> {
        let ended = f32::from(self.short()?) / PARTS;
        Ok(KindRecord::new(ended, self.sketch()?))
    }

    fn table<const MOST: usize>(&mut self) -> Result<KindTable<MOST>, InvalidRhythm> {
        let mut table = KindTable::default();
        for _ in 0..self.short()? {
            let [exact, template] = [self.long()?, self.long()?].map(Fingerprint::from_bits);
            let kind = ReplyKind { exact, template };
            let record = self.record()?;
            if table.len() == MOST || table.get(exact).is_some() {
                return Err(InvalidRhythm);
            }
            table.insert(kind, record);
        }
        Ok(table)
    }
}
