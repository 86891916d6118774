//! Accounts.

use mesh_runtime::database::{Connection, DatabaseError, PageRequest, Row, UnixMillis};
use sqlx::Row as _;
use uuid::Uuid;

use crate::user::{DisplayName, Email, User};

const INSERT: &str = "INSERT INTO users \
     (id, email, display_name, password_hash, version, created_at_ms, updated_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7)";
const FIND: &str = "SELECT id, email, display_name, version, created_at_ms, updated_at_ms FROM users \
     WHERE id = $1 AND ($2 IS NULL OR id = $2)";
const FIND_BY_EMAIL: &str = "SELECT id, email, display_name, version, created_at_ms, updated_at_ms, password_hash \
     FROM users WHERE email = $1";
const FIND_PASSWORD: &str = "SELECT email, password_hash FROM users WHERE id = $1 AND ($2 IS NULL OR id = $2)";
const CHANGE_PASSWORD: &str = "UPDATE users SET password_hash = $1 WHERE id = $2 AND password_hash = $3";
const UPDATE: &str = "UPDATE users SET email = $1, display_name = $2, version = $3, updated_at_ms = $4 WHERE id = $5";
const DELETE: &str = "DELETE FROM users WHERE id = $1 AND ($2 IS NULL OR id = $2)";
const LIST: &str = "SELECT id, email, display_name, version, created_at_ms, updated_at_ms FROM users \
     WHERE id > $1 ORDER BY id LIMIT $2";

#[cfg(test)]
pub(super) const QUERIES: &[&str] = &[FIND, FIND_BY_EMAIL, FIND_PASSWORD, CHANGE_PASSWORD, UPDATE, DELETE, LIST];

/// The hash of an account's password, as a PHC string. It has no `Debug`.
#[derive(Clone)]
pub(crate) struct PasswordHash(pub(crate) String);

/// Adds an account; [`DatabaseError::NotUnique`] where the email address is taken.
pub(crate) async fn insert(
    connection: &mut Connection,
    user: &User,
    password: &PasswordHash,
) -> Result<(), DatabaseError> {
    let insert = sqlx::query(INSERT).bind(user.id).bind(user.email.as_str()).bind(user.display_name.as_str());
    let insert = insert.bind(password.0.as_str()).bind(user.version).bind(user.created_at.0).bind(user.updated_at.0);
    insert.execute(connection).await?;
    Ok(())
}

/// An account, if there is one and `owner` may know it: of another's, the database gives what it gives of none.
pub(crate) async fn find(
    connection: &mut Connection,
    id: Uuid,
    owner: Option<Uuid>,
) -> Result<Option<User>, DatabaseError> {
    sqlx::query(FIND).bind(id).bind(owner).fetch_optional(connection).await?.as_ref().map(user).transpose()
}

/// The account of an email address, and what to check its password against.
pub(crate) async fn find_by_email(
    connection: &mut Connection,
    email: &Email,
) -> Result<Option<(User, PasswordHash)>, DatabaseError> {
    let row = sqlx::query(FIND_BY_EMAIL).bind(email.as_str()).fetch_optional(connection).await?;
    row.map(|row| Ok((user(&row)?, PasswordHash(row.try_get("password_hash")?)))).transpose()
}

/// What to check an account's password against, and its email address; as [`find`].
pub(crate) async fn find_password(
    connection: &mut Connection,
    id: Uuid,
    owner: Option<Uuid>,
) -> Result<Option<(Email, PasswordHash)>, DatabaseError> {
    let row = sqlx::query(FIND_PASSWORD).bind(id).bind(owner).fetch_optional(connection).await?;
    let found = |row: Row| Ok((Email::stored(row.try_get("email")?), PasswordHash(row.try_get("password_hash")?)));
    row.map(found).transpose()
}

/// Exchanges a password; whether it was still the one that was checked.
pub(crate) async fn change_password(
    connection: &mut Connection,
    id: Uuid,
    from: &PasswordHash,
    to: &PasswordHash,
) -> Result<bool, DatabaseError> {
    let change = sqlx::query(CHANGE_PASSWORD).bind(to.0.as_str()).bind(id).bind(from.0.as_str());
    Ok(change.execute(connection).await?.rows_affected() > 0)
}

/// Writes an account that was found in the same transaction; [`DatabaseError::NotUnique`] where the email address is
/// taken.
pub(crate) async fn update(connection: &mut Connection, user: &User) -> Result<(), DatabaseError> {
    let update = sqlx::query(UPDATE).bind(user.email.as_str()).bind(user.display_name.as_str());
    update.bind(user.version).bind(user.updated_at.0).bind(user.id).execute(connection).await?;
    Ok(())
}

/// Whether there was one that `owner` may delete. Its families go with it.
pub(crate) async fn delete(connection: &mut Connection, id: Uuid, owner: Option<Uuid>) -> Result<bool, DatabaseError> {
    Ok(sqlx::query(DELETE).bind(id).bind(owner).execute(connection).await?.rows_affected() > 0)
}

pub(crate) async fn list(connection: &mut Connection, page: &PageRequest) -> Result<Vec<User>, DatabaseError> {
    let rows = sqlx::query(LIST).bind(page.after()).bind(page.limit()).fetch_all(connection).await?;
    rows.iter().map(user).collect()
}

fn user(row: &Row) -> Result<User, DatabaseError> {
    Ok(User {
        id: row.try_get("id")?,
        email: Email::stored(row.try_get("email")?),
        display_name: DisplayName::stored(row.try_get("display_name")?),
        version: row.try_get("version")?,
        created_at: UnixMillis(row.try_get("created_at_ms")?),
        updated_at: UnixMillis(row.try_get("updated_at_ms")?),
    })
}
