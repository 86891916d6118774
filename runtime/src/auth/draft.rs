//! Files that appear whole: written beside their place under a name that nobody looks for, then put there.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::entropy;

/// The folder of a file; the current one, where the path names none.
pub(super) fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes a file of these permissions beside its place and has `put` bring it there, from the first path to the second. The
/// draft is gone afterwards, whatever came of it, and what was put there survives a power cut.
pub(super) fn write(
    path: &Path,
    mode: u32,
    bytes: &[u8],
    put: impl FnOnce(PathBuf, PathBuf) -> io::Result<()>,
) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let draft = folder(path).join(format!(".{}.{}", name.display(), entropy::uuid_v4().simple()));
    let written = fill(&draft, mode, bytes).and_then(|()| put(draft.clone(), path.to_owned()));
    let removed = match std::fs::remove_file(&draft) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()), // it was moved, or never made
        removed => removed,
    };
    // The first fault is the one to tell.
    written.and(removed).and_then(|()| File::open(folder(path))?.sync_all())
}

fn fill(draft: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(draft)?;
    // The umask may have taken from it what is meant to be.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}
