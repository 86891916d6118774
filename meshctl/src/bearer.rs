//! The token that a call carries: read once, sent with it, and shown nowhere.

use std::convert::Infallible;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::str::FromStr;

use http::HeaderValue;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::failure::Failure;

/// Longest token, in bytes: what fits into the headers of a call with room to spare. One of ours has some 400.
const TOKEN_BYTES_MAX: u64 = 8 * 1024;

/// A token as calls carry it. No text that is made of it holds the token.
#[derive(Clone)]
pub struct Bearer(MetadataValue<Ascii>);

/// Where a command finds its token.
#[derive(Debug, Clone)]
pub(crate) enum TokenSource {
    /// On the command line, or in the environment. What is no token is told by us and not by the reader of the command line,
    /// which repeats what it was given.
    Given(Result<Bearer, String>),
    /// In a file.
    File(PathBuf),
}

impl Bearer {
    /// Takes a token as it was issued; says what is wrong with one that no call can carry, without showing it.
    pub fn new(token: &str) -> Result<Bearer, String> {
        if token.is_empty() {
            return Err("the token is empty".to_owned());
        }
        if token.len() as u64 > TOKEN_BYTES_MAX {
            return Err(format!("the token has {} bytes, and {TOKEN_BYTES_MAX} are allowed", token.len()));
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(
                "the token holds blanks or signs that no token has; wanted what `meshctl token` prints".to_owned()
            );
        }
        let mut value: MetadataValue<Ascii> =
            format!("Bearer {token}").parse().map_err(|_| "the token cannot be sent in a header".to_owned())?;
        value.set_sensitive(true);
        Ok(Bearer(value))
    }

    /// What an `Authorization` header says.
    pub(crate) fn header(&self) -> HeaderValue {
        let mut header = HeaderValue::from_bytes(self.0.as_encoded_bytes()).expect("metadata is a header's value");
        header.set_sensitive(true);
        header
    }

    /// Has a call say who makes it.
    pub fn attach<T>(&self, request: &mut Request<T>) {
        request.metadata_mut().insert("authorization", self.0.clone());
    }
}

/// For stubs of which every call is made by the same caller.
impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        self.attach(&mut request);
        Ok(request)
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer(***)")
    }
}

impl TokenSource {
    /// The token.
    pub(crate) fn read(&self) -> Result<Bearer, Failure> {
        match self {
            TokenSource::Given(read) => {
                read.clone().map_err(|error| Failure::Usage(format!("--token or MESH_TOKEN: {error}")))
            }
            TokenSource::File(path) => {
                let fault = |what: &dyn fmt::Display| Failure::Usage(format!("--token @{}: {what}", path.display()));
                let mut text = String::new();
                let file = File::open(path).map_err(|error| fault(&error))?;
                file.take(TOKEN_BYTES_MAX + 2).read_to_string(&mut text).map_err(|error| fault(&error))?;
                Bearer::new(text.trim()).map_err(|error| fault(&error))
            }
        }
    }
}

impl FromStr for TokenSource {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.strip_prefix('@') {
            Some(file) => TokenSource::File(file.into()),
            None => TokenSource::Given(Bearer::new(text)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_sent_and_not_shown() {
        let bearer = Bearer::new("a.b.c").expect("it can be sent");
        let mut request = Request::new(());
        bearer.attach(&mut request);
        assert_eq!(request.metadata().get("authorization").map(MetadataValue::as_bytes), Some(&b"Bearer a.b.c"[..]));
        for text in [format!("{bearer:?}"), format!("{:?}", TokenSource::Given(Ok(bearer))), format!("{request:?}")] {
            assert!(!text.contains("a.b.c"), "{text}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_repeated() {
        for text in ["", "two words", "a\nb", "ä", "x".repeat(8 * 1024 + 1).as_str()] {
            let Ok(source) = text.parse::<TokenSource>();
            let fault = source.read().expect_err("no call can carry it").to_string();
            assert!(text.is_empty() || !fault.contains(text), "{fault}");
            assert!(text.is_empty() || !format!("{source:?}").contains(text), "{source:?}");
        }
    }

    #[test]
    fn a_token_may_stand_in_a_file() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let file = folder.path().join("token");
        let Ok(source) = format!("@{}", file.display()).parse::<TokenSource>();
        let missing = source.read().expect_err("it is not there");
        assert!(missing.to_string().contains("token"), "{missing}");
        std::fs::write(&file, "a.b.c\n").expect("it can be written");
        let mut request = Request::new(());
        source.read().expect("it is there").attach(&mut request);
        assert_eq!(request.metadata().get("authorization").map(MetadataValue::as_bytes), Some(&b"Bearer a.b.c"[..]));
        std::fs::write(&file, "a ".repeat(8 * 1024)).expect("it can be written");
        assert!(source.read().is_err());
    }
}
