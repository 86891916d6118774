//! The public keys of all instances.

use mesh_runtime::auth::Jwk;
use mesh_runtime::database::{Connection, DatabaseError, UnixMillis};
use sqlx::Row as _;

/// Most keys that are listed, and so most instances in a key's life.
const LISTED_MAX: i64 = 256;

const PUBLISH: &str = "INSERT INTO signing_keys (kid, x, ends_at_ms) VALUES ($1, $2, $3) \
     ON CONFLICT (kid) DO UPDATE SET ends_at_ms = excluded.ends_at_ms WHERE signing_keys.ends_at_ms < $4";
const PRUNE: &str = "DELETE FROM signing_keys WHERE ends_at_ms <= $1";
const LIST: &str = "SELECT kid, x FROM signing_keys WHERE ends_at_ms > $1 ORDER BY ends_at_ms DESC LIMIT $2";

#[cfg(test)]
pub(super) const QUERIES: &[&str] = &[PRUNE, LIST];

/// Sees to it that a key is listed until `least` at the earliest; where it is not yet, until `end`.
pub(crate) async fn publish(
    connection: &mut Connection,
    key: &Jwk,
    least: UnixMillis,
    end: UnixMillis,
) -> Result<(), DatabaseError> {
    let publish = sqlx::query(PUBLISH).bind(key.kid.as_str()).bind(key.x.as_str()).bind(end.0).bind(least.0);
    publish.execute(connection).await?;
    Ok(())
}

/// Forgets the keys whose time is over.
pub(crate) async fn prune(connection: &mut Connection, now: UnixMillis) -> Result<(), DatabaseError> {
    sqlx::query(PRUNE).bind(now.0).execute(connection).await?;
    Ok(())
}

/// The keys and their names, those published last first.
pub(crate) async fn list(connection: &mut Connection, now: UnixMillis) -> Result<Vec<(String, String)>, DatabaseError> {
    let rows = sqlx::query(LIST).bind(now.0).bind(LISTED_MAX).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.try_get("kid")?, row.try_get("x")?))).collect()
}
