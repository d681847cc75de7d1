//! The files that a configuration names, and the configuration file itself.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// The largest file of a configuration or a secret. A larger one is probably a wrong path.
const FILE_MAX: u64 = 1 << 20;

/// The right of all users to write, in the mode of a file.
const OTHERS_WRITE: u32 = 0o002;

/// The mark of a folder in which only the owner of a file may replace it.
const STICKY: u32 = 0o1000;

/// The text of a file.
#[derive(Debug)]
pub struct FileText {
    /// The text, without a byte order mark.
    pub text: String,
    /// Whether every user of the machine can change it.
    pub writable_by_others: bool,
}

impl From<String> for FileText {
    fn from(text: String) -> Self {
        Self { text, writable_by_others: false }
    }
}

/// Reads a file.
pub(super) fn read_file(path: &Path) -> io::Result<FileText> {
    let mut text = String::new();
    let length = File::open(path)?.take(FILE_MAX + 1).read_to_string(&mut text)?;
    if length as u64 > FILE_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "more than 1 MiB"));
    }
    let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
    Ok(FileText { text, writable_by_others: writable_by_others(path) })
}

/// Returns whether every user of this machine can write a file, or replace it in its folder. Pipes and devices do not count.
pub fn writable_by_others(path: &Path) -> bool {
    let file = fs::metadata(path).is_ok_and(|file| file.is_file() && file.mode() & OTHERS_WRITE != 0);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let replaceable = |folder: fs::Metadata| folder.mode() & (OTHERS_WRITE | STICKY) == OTHERS_WRITE;
    file || fs::metadata(folder).is_ok_and(replaceable)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn file_or_folder_open_to_others_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("secrets");
        fs::create_dir(&inner).unwrap();
        let path = inner.join("secret");
        fs::write(&path, "\u{feff}hush\n").unwrap();
        let with = |file: u32, folder: u32| {
            fs::set_permissions(&path, Permissions::from_mode(file)).unwrap();
            fs::set_permissions(&inner, Permissions::from_mode(folder)).unwrap();
            let read = read_file(&path).unwrap();
            assert_eq!(read.text, "hush\n");
            read.writable_by_others
        };
        assert!(!with(0o600, 0o700) && !with(0o664, 0o755) && !with(0o444, 0o1777));
        assert!(with(0o602, 0o700) && with(0o666, 0o1777) && with(0o600, 0o777));
        assert!(!writable_by_others(Path::new("/dev/null")));
    }
}
