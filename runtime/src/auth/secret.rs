//! Text that nobody but its reader may see.

use http::HeaderValue;
use zeroize::Zeroizing;

/// A token, a key, a password: it has no `Debug` and no `Display`, so it cannot end in a log line, and its bytes are wiped
/// when it is dropped.
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text, for who needs it. The name is there to be found in a review.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// As the value of an `authorization` header, which is marked sensitive: HTTP/2 then keeps it out of its table, and
    /// `Debug` shows none of it. `None` where the text cannot stand in a header.
    #[must_use]
    pub fn bearer(&self) -> Option<HeaderValue> {
        let text = Zeroizing::new(format!("Bearer {}", self.expose()));
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}
