//! The schema of the store: the known migrations, and whether a store has had them.
//!
//! The files of `migrations/` are part of the program, so each version carries its own. A store records its
//! migrations with their checksums in one key, together with the rule for partitions (docs/adr/0012). This module
//! only judges the content of that key.
//!
//! A migration runs while replicas of the previous version serve. It adds what the new version needs, and a later
//! release removes what is obsolete. It is safe to run twice. The checksum of its file is recorded, so a released
//! file never changes, not even in a comment.

use std::collections::BTreeMap;
use std::fmt;

use crate::domain::Sha256;

/// Every migration of this version, in order.
pub(super) const MIGRATIONS: &[Migration] = &[Migration {
    number: 1,
    name: "partitions",
    text: include_str!("../../migrations/0001-partitions.lua"),
}];

/// The facts that the first migration fixed, as [`crate::domain::Partition`] has them.
const FACTS: [(&str, &str); 2] =
    [("partitions", "256"), ("partition_hash", "sha256(bot NUL user), first byte")];

/// The first line of a migration that runs on the schema key alone, in one step with its record.
#[cfg(test)]
const ON_SCHEMA: &str = "-- Runs on the schema key.\n";
/// The first line of a migration that runs on each partition, some keys at a time.
const ON_PARTITIONS: &str = "-- Runs on each partition.\n";

/// One step from a schema to the next.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    pub(super) number: u32,
    pub(super) name: &'static str,
    /// The Lua text. Its first line names the keys it runs on.
    pub(super) text: &'static str,
}

impl Migration {
    /// Returns the recorded checksum: the SHA-256 of the file in hexadecimal digits.
    pub(super) fn checksum(&self) -> String {
        use fmt::Write as _;
        Sha256::digest(self.text).iter().fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }

    /// Returns whether it runs on each partition instead of the schema key.
    pub(super) fn is_on_partitions(&self) -> bool {
        self.text.starts_with(ON_PARTITIONS)
    }
}

/// Writes the name of the file: `0001-partitions`.
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

/// A list of migrations, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationList(pub Vec<Migration>);

impl MigrationList {
    /// Returns whether the list has every migration of this version, as for an empty store.
    pub fn is_complete(&self) -> bool {
        self.0 == MIGRATIONS
    }
}

impl fmt::Display for MigrationList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        commas(f, &self.0)
    }
}

/// A list of migration numbers.
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

/// The schema of a store, compared with this version's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SchemaVerdict {
    /// No migration is recorded: the store is new or was emptied. All migrations run, over any other keys, because running replicas write to an emptied store at once.
    Empty,
    /// The store has had all migrations.
    Current,
    /// The store lacks these migrations.
    Behind(MigrationList),
    /// This version must not touch the store.
    Foreign(ForeignSchema),
}

/// The reason why this version must not touch a store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForeignSchema {
    /// The schema key holds something else.
    #[error("the store's key `{key}` is a {kind} of another program; choose another store.key_prefix")]
    NotASchema {
        /// The key.
        key: String,
        /// The type that Redis reports for it.
        kind: String,
    },
    /// A migration was recorded with another text, or is missing before later ones.
    #[error(
        "the store was set up with other migrations than this version's ({migration} {}); run the version that set it \
         up, or choose another store.key_prefix",
        if *.recorded { "has another checksum" } else { "is missing before later ones" }
    )]
    Changed {
        /// The migration.
        migration: Migration,
        /// Whether it was recorded.
        recorded: bool,
    },
    /// A newer version migrated the store.
    #[error(
        "the store was migrated by a newer version of rtm-bridge (migrations not known here: {0}); run that version, \
         or a newer one"
    )]
    Ahead(MigrationNumbers),
    /// The store assigns conversations to partitions by another rule.
    #[error(
        "the store assigns conversations to partitions by another rule than this version (`{fact}` is {}, not `{ours}`); \
         run the version that set it up, or choose another store.key_prefix",
        .recorded.as_ref().map_or_else(|| "missing".to_owned(), |recorded| format!("`{recorded}`"))
    )]
    OtherLayout {
        /// The field that differs.
        fact: &'static str,
        /// Its value in the store.
        recorded: Option<String>,
        /// Its value in this version.
        ours: &'static str,
    },
}

impl SchemaVerdict {
    /// Judges the fields of the schema key. Unknown fields are ignored: a later version that adds some adds a
    /// migration too.
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

impl From<ForeignSchema> for SchemaVerdict {
    fn from(foreign: ForeignSchema) -> Self {
        Self::Foreign(foreign)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::Partition;
    use crate::domain::fixtures::conversation;

    const SECOND: Migration = Migration { number: 2, name: "second", text: "-- Runs on each partition.\n" };
    const THIRD: Migration = Migration { number: 3, name: "third", text: "-- Runs on the schema key.\n" };
    const KNOWN: [Migration; 3] = [MIGRATIONS[0], SECOND, THIRD];

    /// Returns the schema key after these migrations.
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
        match SchemaVerdict::of(&KNOWN[..2], fields) {
            SchemaVerdict::Foreign(foreign) => foreign.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn released_migrations_never_change() {
        // A new migration adds a line here. Existing lines never change.
        let released: Vec<_> = MIGRATIONS.iter().map(|m| (m.to_string(), m.checksum())).collect();
        assert_eq!(
            released,
            [(
                "0001-partitions".to_owned(),
                "4fea78820cd9ed3d1275299eb3afebbd56fc5672bbd162b0f2b178b59587a5cf".to_owned()
            )]
        );
    }

    #[test]
    fn each_migration_file_is_embedded_and_says_where_it_runs() {
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
    fn first_migration_fixes_the_facts_of_the_code() {
        assert_eq!(FACTS[0].1, Partition::COUNT.to_string());
        for (fact, value) in FACTS {
            assert!(MIGRATIONS[0].text.contains(&format!("'{fact}', '{value}'")), "{fact}");
        }
        let conversation = conversation("support", "Zoë");
        let first = Sha256::digest("support\0Zoë")[0];
        assert_eq!(Partition::of(&conversation).index(), usize::from(first));
    }

    #[test]
    fn store_without_records_is_empty() {
        assert_eq!(SchemaVerdict::of(&KNOWN, &after(&[])), SchemaVerdict::Empty);
        let mut fields = after(&KNOWN);
        fields.retain(|field, _| field.parse::<u32>().is_err());
        assert_eq!(SchemaVerdict::of(&KNOWN, &fields), SchemaVerdict::Empty, "facts alone, ours");
    }

    #[test]
    fn facts_are_compared_without_recorded_migrations() {
        let fields = BTreeMap::from([("partitions".to_owned(), "64".to_owned())]);
        let text = refusal(&fields);
        assert!(text.contains("`partitions` is `64`, not `256`") && text.contains("key_prefix"), "{text}");
        let mut fields = after(&KNOWN[..1]);
        fields.remove("partition_hash");
        let text = refusal(&fields);
        assert!(text.contains("`partition_hash` is missing"), "{text}");
    }

    #[test]
    fn newer_store_is_refused_with_its_numbers() {
        let mut fields = after(&KNOWN);
        fields.insert("11".to_owned(), "x".to_owned());
        // The newer version may have changed the layout.
        fields.insert("partitions".to_owned(), "512".to_owned());
        let text = refusal(&fields);
        assert!(text.contains("newer version") && text.contains("here: 3, 11"), "{text}");
    }

    #[test]
    fn changed_migrations_are_refused() {
        let mut fields = after(&KNOWN[..2]);
        fields.insert("1".to_owned(), "0".repeat(64));
        let text = refusal(&fields);
        assert!(text.contains("0001-partitions has another checksum"), "{text}");
        fields.remove("1");
        let text = refusal(&fields);
        assert!(text.contains("0001-partitions is missing before later ones"), "{text}");
    }

    proptest! {
        /// For any content of the key: it is current or behind only if it holds our first migrations and our facts.
        #[test]
        fn only_a_prefix_of_our_migrations_is_accepted(
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
            let verdict = SchemaVerdict::of(&KNOWN[..known], &fields);
            let numbers = fields.keys().filter(|field| field.parse::<u32>().is_ok()).count();
            // Without the last one, the key is as it was before it.
            let sound = fields.get("partitions").is_none_or(|n| n == FACTS[0].1)
                && fields.get("partition_hash").is_none_or(|n| n == FACTS[1].1)
                && (numbers == 0 || FACTS.iter().all(|(fact, _)| fields.contains_key(*fact)))
                && numbers <= known
                && after(&KNOWN[..numbers.min(KNOWN.len())]).iter().all(|(field, ours)| fields.get(field) == Some(ours));
            let wanted = match numbers {
                _ if !sound => None,
                0 => Some(SchemaVerdict::Empty),
                n if n == known => Some(SchemaVerdict::Current),
                n => Some(SchemaVerdict::Behind(MigrationList(KNOWN[n..known].to_vec()))),
            };
            match wanted {
                Some(wanted) => prop_assert_eq!(verdict, wanted),
                None => prop_assert!(matches!(verdict, SchemaVerdict::Foreign(_)), "{:?} {:?}", verdict, fields),
            }
        }
    }
}
