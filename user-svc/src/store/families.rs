//! Families: what descends from one login.

use std::time::Duration;

use mesh_runtime::database::{Connection, DatabaseError, UnixMillis};
use sqlx::Row as _;
use uuid::Uuid;

use super::users::PasswordHash;
use crate::refresh::{RefreshToken, Seed, TokenHash};

/// How long a family lives, however often it is used.
const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Most families of one account; with one more, the one that was used longest ago ends.
pub(crate) const OF_ONE_USER_MAX: i64 = 20;
/// Families past their end that each new one clears away: more than the one that it adds.
const PRUNED_PER_LOGIN: i64 = 8;
/// How long an exchanged token gives its successor once more.
pub(crate) const EXCHANGED_KEPT: Duration = Duration::from_secs(30);

const BEGIN: &str = "INSERT INTO families (id, user_id, token_hash, begun_at_ms, used_at_ms, ends_at_ms) \
     SELECT $1, id, $2, $3, $3, $4 FROM users WHERE id = $5 AND password_hash = $6";
const TRIM: &str = "DELETE FROM families WHERE id IN \
     (SELECT id FROM families WHERE user_id = $1 ORDER BY used_at_ms DESC LIMIT $2 OFFSET $2)";
const PRUNE: &str = "DELETE FROM families WHERE id IN \
     (SELECT id FROM families WHERE ends_at_ms <= $1 ORDER BY ends_at_ms LIMIT $2)";
const FIND: &str = "SELECT user_id, token_hash FROM families WHERE id = $1 AND ends_at_ms > $2";
const SEED: &str =
    "SELECT seed FROM exchanged_tokens WHERE family_id = $1 AND token_hash = $2 AND exchanged_at_ms > $3";
const FORGET: &str = "DELETE FROM exchanged_tokens WHERE family_id = $1 AND exchanged_at_ms <= $2";
const EXCHANGED: &str = "SELECT COUNT(*), COALESCE(MIN(exchanged_at_ms), 0) FROM exchanged_tokens WHERE family_id = $1";
const REMEMBER: &str =
    "INSERT INTO exchanged_tokens (family_id, token_hash, seed, exchanged_at_ms) VALUES ($1, $2, $3, $4)";
const EXCHANGE: &str = "UPDATE families SET token_hash = $1, used_at_ms = $2 WHERE id = $3";
const END: &str = "DELETE FROM families WHERE id = $1 AND ($2 IS NULL OR user_id = $2)";
const END_OTHERS: &str = "DELETE FROM families WHERE user_id = $1 AND NOT (id = $2 AND token_hash = $3)";

#[cfg(test)]
pub(super) const QUERIES: &[&str] = &[BEGIN, TRIM, PRUNE, FIND, SEED, FORGET, EXCHANGED, EXCHANGE, END, END_OTHERS];

/// A family that lives.
pub(crate) struct Family {
    pub(crate) user_id: Uuid,
    /// Of the one token that has not been exchanged.
    pub(crate) token_hash: TokenHash,
}

/// Begins the family of a token; whether the password is still the one that was checked.
pub(crate) async fn begin(
    connection: &mut Connection,
    token: &RefreshToken,
    user_id: Uuid,
    password: &PasswordHash,
    now: UnixMillis,
) -> Result<bool, DatabaseError> {
    sqlx::query(PRUNE).bind(now.0).bind(PRUNED_PER_LOGIN).execute(&mut *connection).await?;
    let begin = sqlx::query(BEGIN).bind(token.family()).bind(token.hash().0).bind(now.0).bind(now.after(KEPT).0);
    let begun = begin.bind(user_id).bind(password.0.as_str()).execute(&mut *connection).await?.rows_affected() > 0;
    sqlx::query(TRIM).bind(user_id).bind(OF_ONE_USER_MAX).execute(connection).await?;
    Ok(begun)
}

/// The family, if it lives.
pub(crate) async fn find(
    connection: &mut Connection,
    id: Uuid,
    now: UnixMillis,
) -> Result<Option<Family>, DatabaseError> {
    let row = sqlx::query(FIND).bind(id).bind(now.0).fetch_optional(connection).await?;
    let family = |row: mesh_runtime::database::Row| {
        Ok(Family { user_id: row.try_get("user_id")?, token_hash: TokenHash(row.try_get("token_hash")?) })
    };
    row.map(family).transpose()
}

/// The seed of a token that was exchanged at most [`EXCHANGED_KEPT`] ago.
pub(crate) async fn seed(
    connection: &mut Connection,
    token: &RefreshToken,
    now: UnixMillis,
) -> Result<Option<Seed>, DatabaseError> {
    let find = sqlx::query(SEED).bind(token.family()).bind(token.hash().0).bind(now.before(EXCHANGED_KEPT).0);
    let Some(row) = find.fetch_optional(connection).await? else { return Ok(None) };
    let seed = Seed::try_from(row.try_get::<Vec<u8>, _>("seed")?);
    seed.map(Some).map_err(|_| DatabaseError::Unreadable { what: "seed of a refresh token" })
}

/// How many tokens of a family were exchanged in the last [`EXCHANGED_KEPT`], and when the first of them was.
pub(crate) async fn exchanged(
    connection: &mut Connection,
    family: Uuid,
    now: UnixMillis,
) -> Result<(i64, UnixMillis), DatabaseError> {
    sqlx::query(FORGET).bind(family).bind(now.before(EXCHANGED_KEPT).0).execute(&mut *connection).await?;
    let row = sqlx::query(EXCHANGED).bind(family).fetch_one(connection).await?;
    Ok((row.try_get(0)?, UnixMillis(row.try_get(1)?)))
}

/// Exchanges a token for the next one.
pub(crate) async fn exchange(
    connection: &mut Connection,
    token: &RefreshToken,
    seed: &Seed,
    next: &RefreshToken,
    now: UnixMillis,
) -> Result<(), DatabaseError> {
    let remember = sqlx::query(REMEMBER).bind(token.family()).bind(token.hash().0).bind(seed.as_slice());
    remember.bind(now.0).execute(&mut *connection).await?;
    sqlx::query(EXCHANGE).bind(next.hash().0).bind(now.0).bind(token.family()).execute(connection).await?;
    Ok(())
}

/// Ends a family that `owner` may end.
pub(crate) async fn end(connection: &mut Connection, id: Uuid, owner: Option<Uuid>) -> Result<(), DatabaseError> {
    sqlx::query(END).bind(id).bind(owner).execute(connection).await?;
    Ok(())
}

/// Ends all families of an account but the one whose last token this is.
pub(crate) async fn end_others(
    connection: &mut Connection,
    user_id: Uuid,
    kept: Option<&RefreshToken>,
) -> Result<(), DatabaseError> {
    // No family has the nil id.
    let (id, hash) = kept.map_or((Uuid::nil(), Vec::new()), |token| (token.family(), token.hash().0));
    sqlx::query(END_OTHERS).bind(user_id).bind(id).bind(hash).execute(connection).await?;
    Ok(())
}
