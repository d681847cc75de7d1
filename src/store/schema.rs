//! The store's schema: which migrations there are, and whether a store has had them.
//!
//! The files in `migrations/` are part of the program, so that each version carries the ones it needs. A store
//! says in one key which it had, with their checksums, and by which rule conversations were dealt onto its
//! partitions (docs/adr/0012). Here is only the verdict on what that key holds; reading it and running migrations is
//! the store's own business.
//!
//! A migration runs while replicas of the version before it serve: it adds what the new version needs, and a later
//! release removes what is not needed any more. It is safe to run twice. Once released, its file never changes, a
//! comment included: its checksum is recorded.

use std::collections::BTreeMap;
use std::fmt;

use crate::domain::Sha256;

/// Every migration of this version, in order.
pub(super) const MIGRATIONS: &[Migration] = &[Migration {
    number: 1,
    name: "partitions",
    text: include_str!("../../migrations/0001-partitions.lua"),
}];

/// What the first migration fixed, as [`crate::domain::Partition`] has it.
const FACTS: [(&str, &str); 2] =
    [("partitions", "256"), ("partition_hash", "sha256(bot NUL user), first byte")];

/// The first line of a migration that runs on the schema key alone, in one step with recording it.
#[cfg(test)]
const ON_SCHEMA: &str = "-- Runs on the schema key.\n";
/// The first line of a migration that runs on each partition, some keys at a time.
const ON_PARTITIONS: &str = "-- Runs on each partition.\n";

/// One step from a schema to the next.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    pub(super) number: u32,
    pub(super) name: &'static str,
    /// Lua. Its first line says on which keys it runs.
    pub(super) text: &'static str,
}

impl Migration {
    /// What is recorded of it: the SHA-256 of its file in hexadecimal digits.
    pub(super) fn checksum(&self) -> String {
        use fmt::Write as _;
        Sha256::digest(self.text).iter().fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }

    /// Whether it runs on each partition instead of on the schema key.
    pub(super) fn is_on_partitions(&self) -> bool {
        self.text.starts_with(ON_PARTITIONS)
    }
}

/// As its file is called: `0001-partitions`.
impl fmt::Display for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{}", self.number, self.name)
    }
}

impl fmt::Debug for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Some migrations, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationList(pub Vec<Migration>);

impl fmt::Display for MigrationList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        commas(f, &self.0)
    }
}

/// The numbers of migrations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationNumbers(pub Vec<u32>);

impl fmt::Display for MigrationNumbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        commas(f, &self.0)
    }
}

fn commas(f: &mut fmt::Formatter<'_>, items: &[impl fmt::Display]) -> fmt::Result {
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            f.write_str(", ")?;
        }
        item.fmt(f)?;
    }
    Ok(())
}

/// How a store's schema compares with this version's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Schema {
    /// Nothing is recorded: a new store, or one that was emptied. Other keys say nothing, because replicas that
    /// run on write to an emptied store at once; all migrations run over whatever is there.
    Empty,
    /// It has had all of them.
    Current,
    /// These are to come.
    Behind(MigrationList),
    /// This version must not touch it.
    Foreign(ForeignSchema),
}

/// Why this version must not touch a store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForeignSchema {
    /// The key of the schema is something else's.
    #[error("the store's key `{key}` is a {kind} and none of ours; choose another store.key_prefix")]
    NotASchema {
        /// The key.
        key: String,
        /// What Redis says it is.
        kind: String,
    },
    /// A migration was recorded with another text, or not at all although later ones were.
    #[error(
        "the store was set up with other migrations than this version's ({migration} {}); run the version that set it \
         up, or choose another store.key_prefix",
        if *.recorded { "has another checksum" } else { "is missing before later ones" }
    )]
    Changed {
        /// Which.
        migration: Migration,
        /// Whether it was recorded.
        recorded: bool,
    },
    /// A newer version migrated it.
    #[error(
        "the store was migrated by a newer version of rtm-bridge (migrations not known here: {0}); run that version, \
         or a newer one"
    )]
    Ahead(MigrationNumbers),
    /// Its conversations are dealt onto partitions by another rule.
    #[error(
        "the store deals conversations onto partitions by another rule than this version (`{fact}` is {}, not `{ours}`); \
         run the version that set it up, or choose another store.key_prefix",
        .recorded.as_ref().map_or_else(|| "missing".to_owned(), |recorded| format!("`{recorded}`"))
    )]
    OtherLayout {
        /// The field that differs.
        fact: &'static str,
        /// What it is in the store.
        recorded: Option<String>,
        /// What it is here.
        ours: &'static str,
    },
}

impl Schema {
    /// The verdict on the fields of the schema key. Fields that are neither migrations nor known facts say
    /// nothing: a later version that adds some adds a migration too.
    pub(super) fn of(known: &[Migration], fields: &BTreeMap<String, String>) -> Self {
        let recorded: BTreeMap<u32, &str> =
            fields.iter().filter_map(|(field, value)| Some((field.parse().ok()?, value.as_str()))).collect();
        let last = recorded.last_key_value().map(|(number, _)| *number);
        let mut pending = Vec::new();
        for migration in known {
            let checksum = recorded.get(&migration.number);
            let missing = checksum.is_none() && Some(migration.number) < last;
            if missing || checksum.is_some_and(|recorded| *recorded != migration.checksum()) {
                return ForeignSchema::Changed { migration: *migration, recorded: !missing }.into();
            }
            if checksum.is_none() {
                pending.push(*migration);
            }
        }
        let unknown =
            recorded.keys().filter(|number| known.iter().all(|migration| migration.number != **number));
        let unknown: Vec<u32> = unknown.copied().collect();
        if !unknown.is_empty() {
            return ForeignSchema::Ahead(MigrationNumbers(unknown)).into();
        }
        for (fact, ours) in FACTS {
            let found = fields.get(fact);
            if found.map_or(last.is_some(), |found| found != ours) {
                return ForeignSchema::OtherLayout { fact, recorded: found.cloned(), ours }.into();
            }
        }
        match last {
            None => Self::Empty,
            Some(_) if pending.is_empty() => Self::Current,
            Some(_) => Self::Behind(MigrationList(pending)),
        }
    }
}

impl From<ForeignSchema> for Schema {
    fn from(foreign: ForeignSchema) -> Self {
        Self::Foreign(foreign)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{BotName, ConversationId, Partition, UserId};

    const SECOND: Migration = Migration { number: 2, name: "second", text: "-- Runs on each partition.\n" };
    const THIRD: Migration = Migration { number: 3, name: "third", text: "-- Runs on the schema key.\n" };
    const KNOWN: [Migration; 3] = [MIGRATIONS[0], SECOND, THIRD];

    /// The schema key after these migrations.
    fn after(migrations: &[Migration]) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        for migration in migrations {
            fields.insert(migration.number.to_string(), migration.checksum());
        }
        if !migrations.is_empty() {
            fields.extend(FACTS.map(|(fact, value)| (fact.to_owned(), value.to_owned())));
        }
        fields
    }

    fn refusal(fields: &BTreeMap<String, String>) -> String {
        match Schema::of(&KNOWN[..2], fields) {
            Schema::Foreign(foreign) => foreign.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn released_migrations_never_change() {
        // A new one is a new line here; a line that is there stays as it is.
        let released: Vec<_> = MIGRATIONS.iter().map(|m| (m.to_string(), m.checksum())).collect();
        assert_eq!(
            released,
            [(
                "0001-partitions".to_owned(),
                "5433a309a9da65732d713192567150327b415c5682b393769e977db86bc13b0e".to_owned()
            )]
        );
    }

    #[test]
    fn each_file_is_embedded_and_says_where_it_runs() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let embedded: Vec<_> = MIGRATIONS.iter().map(|migration| format!("{migration}.lua")).collect();
        assert_eq!(files, embedded);
        for (migration, number) in MIGRATIONS.iter().zip(1..) {
            assert_eq!(migration.number, number);
            assert!(migration.is_on_partitions() || migration.text.starts_with(ON_SCHEMA), "{migration}");
        }
    }

    #[test]
    fn the_first_migration_fixes_what_the_code_does() {
        assert_eq!(FACTS[0].1, Partition::COUNT.to_string());
        for (fact, value) in FACTS {
            assert!(MIGRATIONS[0].text.contains(&format!("'{fact}', '{value}'")), "{fact}");
        }
        let conversation = ConversationId::new(BotName::new("support").unwrap(), UserId::new("Zoë").unwrap());
        let first = Sha256::digest("support\0Zoë")[0];
        assert_eq!(Partition::of(&conversation).index(), usize::from(first));
    }

    #[test]
    fn an_empty_store_is_empty() {
        assert_eq!(Schema::of(&KNOWN, &after(&[])), Schema::Empty);
        let mut fields = after(&KNOWN);
        fields.retain(|field, _| field.parse::<u32>().is_err());
        assert_eq!(Schema::of(&KNOWN, &fields), Schema::Empty, "facts alone, ours");
    }

    #[test]
    fn facts_are_compared_also_where_nothing_else_is_recorded() {
        let fields = BTreeMap::from([("partitions".to_owned(), "64".to_owned())]);
        let text = refusal(&fields);
        assert!(text.contains("`partitions` is `64`, not `256`") && text.contains("key_prefix"), "{text}");
        let mut fields = after(&KNOWN[..1]);
        fields.remove("partition_hash");
        let text = refusal(&fields);
        assert!(text.contains("`partition_hash` is missing"), "{text}");
    }

    #[test]
    fn newer_stores_are_refused_with_their_numbers() {
        let mut fields = after(&KNOWN);
        fields.insert("11".to_owned(), "x".to_owned());
        // What a newer version did to the layout is that version's business.
        fields.insert("partitions".to_owned(), "512".to_owned());
        let text = refusal(&fields);
        assert!(text.contains("newer version") && text.contains("here: 3, 11"), "{text}");
    }

    #[test]
    fn other_migrations_are_refused() {
        let mut fields = after(&KNOWN[..2]);
        fields.insert("1".to_owned(), "0".repeat(64));
        let text = refusal(&fields);
        assert!(text.contains("0001-partitions has another checksum"), "{text}");
        fields.remove("1");
        let text = refusal(&fields);
        assert!(text.contains("0001-partitions is missing before later ones"), "{text}");
    }

    proptest! {
        /// Whatever a key holds: it is current or behind only after a beginning of our migrations, with our facts.
        #[test]
        fn only_a_beginning_of_ours_is_taken(
            had in 0..=KNOWN.len(),
            known in 0..=KNOWN.len(),
            field in prop_oneof![Just("partitions"), Just("partition_hash"), Just("1"), Just("2"), Just("3"), Just("7"), Just("note")],
            value in prop_oneof![Just(None), "[a-z0-9]{0,4}".prop_map(Some)],
        ) {
            let whole = after(&KNOWN[..had]);
            let mut fields = whole.clone();
            match value {
                Some(value) => fields.insert(field.to_owned(), value),
                None => fields.remove(field),
            };
            let verdict = Schema::of(&KNOWN[..known], &fields);
            let numbers = fields.keys().filter(|field| field.parse::<u32>().is_ok()).count();
            // Removing the last one gives the key as it was before it.
            let sound = fields.get("partitions").is_none_or(|n| n == FACTS[0].1)
                && fields.get("partition_hash").is_none_or(|n| n == FACTS[1].1)
                && (numbers == 0 || FACTS.iter().all(|(fact, _)| fields.contains_key(*fact)))
                && numbers <= known
                && after(&KNOWN[..numbers.min(KNOWN.len())]).iter().all(|(field, ours)| fields.get(field) == Some(ours));
            let wanted = match numbers {
                _ if !sound => None,
                0 => Some(Schema::Empty),
                n if n == known => Some(Schema::Current),
                n => Some(Schema::Behind(MigrationList(KNOWN[n..known].to_vec()))),
            };
            match wanted {
                Some(wanted) => prop_assert_eq!(verdict, wanted),
                None => prop_assert!(matches!(verdict, Schema::Foreign(_)), "{:?} {:?}", verdict, fields),
            }
        }
    }
}
