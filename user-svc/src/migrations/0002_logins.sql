-- What descends from one login. Only the last refresh token can be exchanged; of it and of those before stands their SHA-256.
CREATE TABLE families (
    id          UUID   NOT NULL PRIMARY KEY,
    user_id     UUID   NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    token_hash  BLOB   NOT NULL,
    begun_at_ms BIGINT NOT NULL,
    used_at_ms  BIGINT NOT NULL,
    ends_at_ms  BIGINT NOT NULL
);
CREATE INDEX families_of_user ON families (user_id, used_at_ms);
CREATE INDEX families_by_end ON families (ends_at_ms);

-- Refresh tokens that were exchanged a moment ago: with the seed, and the token that only its holder has, comes the next one.
CREATE TABLE exchanged_tokens (
    family_id       UUID   NOT NULL REFERENCES families (id) ON DELETE CASCADE,
    token_hash      BLOB   NOT NULL,
    seed            BLOB   NOT NULL,
    exchanged_at_ms BIGINT NOT NULL,
    PRIMARY KEY (family_id, token_hash)
);

-- The public half of every instance's key (Ed25519, as a JWK writes it), until its last token has expired.
CREATE TABLE signing_keys (
    kid        TEXT   NOT NULL PRIMARY KEY,
    x          TEXT   NOT NULL,
    ends_at_ms BIGINT NOT NULL
);
CREATE INDEX signing_keys_by_end ON signing_keys (ends_at_ms);
