//! What user-svc keeps: one function per query, each through an index.

pub(crate) mod families;
pub(crate) mod keys;
pub(crate) mod users;

use mesh_runtime::database::Schema;

/// The database of user-svc; the id reads "user".
pub(crate) const SCHEMA: Schema = Schema {
    owner: "user-svc",
    application_id: u32::from_be_bytes(*b"user"),
    migrations: &[
        ("users", include_str!("../migrations/0001_users.sql")),
        ("logins", include_str!("../migrations/0002_logins.sql")),
    ],
};

#[cfg(test)]
mod tests {
    use mesh_runtime::database::Database;

    use super::{SCHEMA, families, keys, users};

    #[tokio::test]
    async fn every_query_uses_an_index() {
        let folder = tempfile::TempDir::new().unwrap();
        let url = format!("sqlite:{}/user.db", folder.path().display()).parse().unwrap();
        let database = Database::open(&url, &SCHEMA).await.unwrap();
        for query in [users::QUERIES, families::QUERIES, keys::QUERIES].concat() {
            assert_eq!(database.unindexed_steps(query).await.unwrap(), [""; 0], "{query}");
        }
    }
}
