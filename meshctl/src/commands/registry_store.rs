//! `registry backup|restore|verify`: what a registry has stored, kept elsewhere, brought back and looked through.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use mesh_runtime::clock;
use registry::storage::{self, BackupError, Summary};
use serde_json::{Value, json};

use crate::args::{Format, Globals, RegistryCommand};
use crate::commands::words;
use crate::failure::Failure;
use crate::output::{note, print};

/// How long work may take until something is said about it, and again between what is said.
const SAY_EVERY: Duration = Duration::from_secs(3);

/// `meshctl registry ...`.
pub(crate) async fn registry(globals: &Globals, command: &RegistryCommand) -> Result<(), Failure> {
    let (what, next, growing) = match command {
        RegistryCommand::Backup { source, file } => (
            format!("{} is backed up to {}", source.display(), file.display()),
            None,
            Some((file.clone(), PathBuf::from(format!("{}.part", file.display())))),
        ),
        RegistryCommand::Restore { file, dir } => (
            format!("{} is restored to {}", file.display(), dir.display()),
            Some(format!("start a registry on it: meshctl serve registry --store file:{}", dir.display())),
            None,
        ),
        RegistryCommand::Verify { path } => (format!("{} is sound", path.display()), None, None),
    };
    let asked = command.clone();
    let work = tokio::task::spawn_blocking(move || match &asked {
        RegistryCommand::Backup { source, file } => storage::backup(source, file),
        RegistryCommand::Restore { file, dir } => storage::restore(file, dir),
        RegistryCommand::Verify { path } => storage::verify(path),
    });
    let part = growing.as_ref().map(|(_, part)| part.as_path());
    let summary = said_to_go_on(work, part).await?.map_err(|error| failure(command, error))?;
    let bytes = growing.as_ref().and_then(|(file, _)| bytes_of(file));
    match globals.output {
        Format::Json => print(&in_json(&summary, bytes).to_string()),
        Format::Table => {
            print(&format!("{what}: {}", in_words(&summary, bytes)))?;
            next.map_or(Ok(()), |next| print(&next))
        }
    }
}

/// Waits for the work to be done, and says now and then that it goes on.
async fn said_to_go_on<T>(work: tokio::task::JoinHandle<T>, part: Option<&Path>) -> Result<T, Failure> {
    let begun = clock::now();
    tokio::pin!(work);
    loop {
        match tokio::time::timeout(SAY_EVERY, &mut work).await {
            Ok(done) => return done.map_err(|error| Failure::Failed(format!("it broke off: {error}"))),
            Err(_) => {
                let written = part.and_then(bytes_of).map(|bytes| format!(", {} written", size(bytes)));
                note(&format!("at it for {}{}", words::span(clock::now() - begun), written.unwrap_or_default()));
            }
        }
    }
}

fn bytes_of(file: &Path) -> Option<u64> {
    file.metadata().ok().map(|metadata| metadata.len())
}

/// What was asked for cannot be, or did not work; and what to do where that is not plain from what is wrong.
fn failure(command: &RegistryCommand, error: BackupError) -> Failure {
    match &error {
        BackupError::NoStore(_) => Failure::Usage(format!(
            "{error}; name the folder that the registry was given with --store file:DIR (mesh-data/registry unless it was \
             given another)"
        )),
        BackupError::NotEmpty(_) | BackupError::Exists(_) => Failure::Usage(error.to_string()),
        BackupError::Unsound { .. } if matches!(command, RegistryCommand::Restore { .. }) => {
            Failure::Failed(format!("{error}; nothing was written, take an older backup"))
        }
        BackupError::Refused { .. } => {
            Failure::Failed(format!("{error}; look at that registry's log, or stop it and try again"))
        }
        BackupError::Store(_) | BackupError::Io { .. } | BackupError::Unsound { .. } => {
            Failure::Failed(error.to_string())
        }
    }
}

fn in_words(summary: &Summary, bytes: Option<u64>) -> String {
    let Summary { position, taken_at, records, services, instances, removals, rules } = summary;
    let taken = taken_at.map(|at| format!(", taken {}", moment(at))).unwrap_or_default();
    let bytes = bytes.map(|bytes| format!(", {}", size(bytes))).unwrap_or_default();
    format!(
        "store {}, generation {}, revision {}{taken}; {services} services, {instances} instances, {rules} rules, \
         {removals} removals in {records} records{bytes}",
        position.store, position.generation.0, position.revision
    )
}

fn in_json(summary: &Summary, bytes: Option<u64>) -> Value {
    let Summary { position, taken_at, records, services, instances, removals, rules } = summary;
    json!({
        "storeId": position.store.as_str(),
        "generation": position.generation.0.to_string(),
        "revision": position.revision.get().to_string(),
        "takenAt": taken_at.map(moment),
        "records": records,
        "services": services,
        "instances": instances,
        "removals": removals,
        "rules": rules,
        "bytes": bytes,
    })
}

/// To the second, in UTC.
fn moment(at: SystemTime) -> String {
    let mut at = prost_types::Timestamp::from(at);
    at.nanos = 0;
    at.to_string()
}

fn size(bytes: u64) -> String {
    const KIB: u64 = 1024;
    const MIB: u64 = KIB * KIB;
    match bytes {
        0..KIB => format!("{bytes} bytes"),
        KIB..MIB => format!("{} KiB", bytes / KIB),
        _ => format!("{} MiB", bytes / MIB),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit() {
        assert_eq!([1023, 1024, 5 * 1024 * 1024].map(size), ["1023 bytes", "1 KiB", "5 MiB"]);
    }

    #[test]
    fn times_are_told_to_the_second() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_750_000_000_999);
        assert_eq!(moment(at), "2025-06-15T15:06:40Z");
    }
}
