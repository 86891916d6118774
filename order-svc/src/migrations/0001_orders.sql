-- Orders. Ids are UUIDs of version 7, so their order is the order of creation; the version counts changes from 1. The
-- total is not stored: it is what the items say.
CREATE TABLE orders (
    id            UUID   NOT NULL PRIMARY KEY,
    user_id       UUID   NOT NULL,
    status        TEXT   NOT NULL,
    currency_code TEXT   NOT NULL,
    version       BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL
);

CREATE INDEX orders_of_user ON orders (user_id, id);

CREATE TABLE order_items (
    order_id    UUID   NOT NULL REFERENCES orders (id) ON DELETE CASCADE,
    line        BIGINT NOT NULL,
    sku         TEXT   NOT NULL,
    quantity    BIGINT NOT NULL,
    price_units BIGINT NOT NULL,
    price_nanos BIGINT NOT NULL,
    PRIMARY KEY (order_id, line)
);
