//! Pages of a list that is ordered by id: how many, from where, and what comes after.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::request::{Fault, Violations};

/// Rows on a page where the caller names no number.
pub const PAGE_SIZE_DEFAULT: u32 = 50;
/// Most rows on a page; a caller who asks for more gets these.
pub const PAGE_SIZE_MAX: u32 = 200;

/// Bytes of the check that closes a token.
const CHECK_BYTES: usize = 16;

/// The list that a page token belongs to: its method and whatever the list was filtered by. A token taken to another
/// list is refused, since it would silently leave rows out.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    method: &'static str,
    filter: Option<Uuid>,
}

impl Scope {
    /// All rows of a method's list.
    pub fn all(method: &'static str) -> Self {
        Self { method, filter: None }
    }

    /// Those that belong to one owner.
    pub fn of(method: &'static str, owner: Uuid) -> Self {
        Self { method, filter: Some(owner) }
    }

    fn check(&self, after: Uuid) -> [u8; CHECK_BYTES] {
        let mut hash = Sha256::new();
        hash.update(b"page token 1\0");
        hash.update(self.method);
        hash.update([0, u8::from(self.filter.is_some())]);
        hash.update(self.filter.unwrap_or_default());
        hash.update(after);
        let mut check = [0; CHECK_BYTES];
        check.copy_from_slice(&hash.finalize()[..CHECK_BYTES]);
        check
    }

    /// 64 hexadecimal digits: the last id, and a check over it and the scope. It keeps honest callers from mistakes; an id
    /// is no secret, so it needs no key.
    fn token(&self, after: Uuid) -> String {
        format!("{}{}", after.simple(), Uuid::from_bytes(self.check(after)).simple())
    }

    fn after(&self, token: &str) -> Result<Uuid, Fault> {
        let unknown = || Fault::from("must be a next_page_token of this list");
        let (after, check) = token.split_at_checked(32).ok_or_else(unknown)?;
        let after = Uuid::try_parse(after).map_err(|_| unknown())?;
        let check = Uuid::try_parse(check).map_err(|_| unknown())?;
        if *check.as_bytes() == self.check(after) { Ok(after) } else { Err(unknown()) }
    }
}

/// A page as asked for.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest {
    scope: Scope,
    size: u32,
    after: Uuid,
}

impl PageRequest {
    /// Checks `page_size` and `page_token`.
    pub fn parse(scope: Scope, page_size: i32, page_token: &str) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        let size = u32::try_from(page_size).map_err(|_| Fault(format!("must not be negative, is {page_size}")));
        let size = violations.check("page_size", size);
        let after = if page_token.is_empty() { Ok(Uuid::nil()) } else { scope.after(page_token) };
        let after = violations.check("page_token", after);
        let (Some(size), Some(after)) = (size, after) else { return Err(violations) };
        let size = if size == 0 { PAGE_SIZE_DEFAULT } else { size.min(PAGE_SIZE_MAX) };
        Ok(Self { scope, size, after })
    }

    /// The list asked for begins behind this id; nil is before all others.
    pub fn after(&self) -> Uuid {
        self.after
    }

    /// Rows to read: one more than a page holds, which tells whether another page follows.
    pub fn limit(&self) -> i64 {
        i64::from(self.size) + 1
    }

    /// Makes a page of up to [`Self::limit`] rows.
    pub fn page<T>(&self, mut rows: Vec<T>, id: impl Fn(&T) -> Uuid) -> Page<T> {
        let size = self.size as usize;
        let more = rows.len() > size;
        rows.truncate(size);
        let next = rows.last().filter(|_| more).map(|last| self.scope.token(id(last)));
        Page { rows, next_page_token: next.unwrap_or_default() }
    }
}

/// A page as found.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The rows, in the order of their ids.
    pub rows: Vec<T>,
    /// What to ask for next; empty on the last page.
    pub next_page_token: String,
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, PageRequest, Scope};

    const LIST: Scope = Scope { method: "List", filter: None };

    fn page(size: i32, token: &str) -> PageRequest {
        PageRequest::parse(LIST, size, token).unwrap()
    }

    #[test]
    fn sizes_are_defaulted_and_capped() {
        assert_eq!(page(0, "").limit(), i64::from(PAGE_SIZE_DEFAULT) + 1);
        assert_eq!(page(7, "").limit(), 8);
        assert_eq!(page(i32::MAX, "").limit(), i64::from(PAGE_SIZE_MAX) + 1);
        assert!(PageRequest::parse(LIST, -1, "").is_err());
    }

    #[test]
    fn a_token_names_the_last_row_and_the_last_page_has_none() {
        let rows: Vec<Uuid> = (1..=3).map(Uuid::from_u128).collect();
        let first = page(2, "").page(rows.clone(), |id| *id);
        assert_eq!(first.rows, rows[..2]);
        assert_eq!(page(2, &first.next_page_token).after(), rows[1]);
        assert_eq!(page(2, &first.next_page_token).page(rows[2..].to_vec(), |id| *id).next_page_token, "");
    }

    #[test]
    fn a_token_that_was_altered_or_taken_elsewhere_is_refused() {
        let token = LIST.token(Uuid::from_u128(7));
        let mut altered = token.clone();
        altered.replace_range(31..32, "8");
        let owner = Scope::of("List", Uuid::from_u128(1));
        for (scope, token) in [
            (LIST, altered.as_str()),
            (LIST, &token[..63]),
            (LIST, "x"),
            (LIST, &"é".repeat(32)),
            (Scope::all("Other"), &token),
            (owner, &token),
            (Scope::of("List", Uuid::from_u128(2)), &owner.token(Uuid::from_u128(7))),
        ] {
            assert!(PageRequest::parse(scope, 0, token).is_err(), "{token}");
        }
    }
}
