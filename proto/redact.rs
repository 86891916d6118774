//! `Debug` of messages that hold a secret: a log line or a failed assertion must not be where it leaks.

use std::fmt;

use crate::shop::user::v1::CreateUserRequest;

impl fmt::Debug for CreateUserRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateUserRequest")
            .field("request_id", &self.request_id)
            .field("email", &self.email)
            .field("display_name", &self.display_name)
            .field("password", &"(redacted)")
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::CreateUserRequest;

    #[test]
    fn a_password_is_not_in_the_debug_text() {
        let request = CreateUserRequest { password: "correct horse".into(), ..CreateUserRequest::default() };
        assert!(!format!("{request:?}").contains("horse"));
    }
}
