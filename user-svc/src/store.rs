//! Accounts in the database: one function per query, each through an index.

use mesh_runtime::database::{Connection, DatabaseError, PageRequest, Row, Schema, UnixMillis};
use sqlx::Row as _;
use uuid::Uuid;

use crate::user::{DisplayName, Email, User};

/// The database of user-svc; the id reads "user".
pub(crate) const SCHEMA: Schema = Schema {
    owner: "user-svc",
    application_id: u32::from_be_bytes(*b"user"),
    migrations: &[("users", include_str!("migrations/0001_users.sql"))],
};

const INSERT: &str = "INSERT INTO users \
     (id, email, display_name, password_hash, version, created_at_ms, updated_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7)";
const FIND: &str = "SELECT id, email, display_name, version, created_at_ms, updated_at_ms FROM users WHERE id = $1";
const UPDATE: &str = "UPDATE users SET email = $1, display_name = $2, version = $3, updated_at_ms = $4 WHERE id = $5";
const DELETE: &str = "DELETE FROM users WHERE id = $1";
const LIST: &str = "SELECT id, email, display_name, version, created_at_ms, updated_at_ms FROM users \
     WHERE id > $1 ORDER BY id LIMIT $2";

/// Adds an account; [`DatabaseError::NotUnique`] where the email address is taken.
pub(crate) async fn insert(connection: &mut Connection, user: &User, password_hash: &str) -> Result<(), DatabaseError> {
    let insert = sqlx::query(INSERT).bind(user.id).bind(user.email.as_str()).bind(user.display_name.as_str());
    let insert = insert.bind(password_hash).bind(user.version).bind(user.created_at.0).bind(user.updated_at.0);
    insert.execute(connection).await?;
    Ok(())
}

pub(crate) async fn find(connection: &mut Connection, id: Uuid) -> Result<Option<User>, DatabaseError> {
    sqlx::query(FIND).bind(id).fetch_optional(connection).await?.as_ref().map(user).transpose()
}

/// Writes an account that was found in the same transaction; [`DatabaseError::NotUnique`] where the email address is
/// taken.
pub(crate) async fn update(connection: &mut Connection, user: &User) -> Result<(), DatabaseError> {
    let update = sqlx::query(UPDATE).bind(user.email.as_str()).bind(user.display_name.as_str());
    update.bind(user.version).bind(user.updated_at.0).bind(user.id).execute(connection).await?;
    Ok(())
}

/// Whether there was one.
pub(crate) async fn delete(connection: &mut Connection, id: Uuid) -> Result<bool, DatabaseError> {
    Ok(sqlx::query(DELETE).bind(id).execute(connection).await?.rows_affected() > 0)
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

#[cfg(test)]
mod tests {
    use mesh_runtime::database::Database;

    use super::{DELETE, FIND, LIST, SCHEMA, UPDATE};

    #[tokio::test]
    async fn every_query_uses_an_index() {
        let folder = tempfile::TempDir::new().unwrap();
        let url = format!("sqlite:{}/user.db", folder.path().display()).parse().unwrap();
        let database = Database::open(&url, &SCHEMA).await.unwrap();
        for query in [FIND, UPDATE, DELETE, LIST] {
            assert_eq!(database.unindexed_steps(query).await.unwrap(), [""; 0], "{query}");
        }
    }
}
