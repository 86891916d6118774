//! `Debug` of messages that hold a secret: a log line or a failed assertion must not be where it leaks.
//!
//! Which fields are secret, the protos say (`debug_redact`). `build.rs` lists the messages that have one, and below each is
//! taken apart, so that a field that is new does not compile until somebody has decided whether to show it.

use std::fmt;

use crate::shop::user::v1::{
    ChangePasswordRequest, CreateUserRequest, LoginRequest, LoginResponse, LogoutRequest, RefreshRequest,
    RefreshResponse,
};

/// Writes the `Debug` of each message: the fields before the semicolon are shown, those after it are not.
macro_rules! redacted {
    ($($message:ident { $($shown:ident),*; $($secret:ident),+ })+) => {
        $(impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let Self { $($shown,)* $($secret: _,)+ } = self;
                f.debug_struct(stringify!($message))
                    $(.field(stringify!($shown), $shown))*
                    $(.field(stringify!($secret), &"(redacted)"))+
                    .finish()
            }
        })+

        /// The debug text of an encoded message; `None` for one that is not written here.
        #[cfg(test)]
        fn debug_text(message: &str, encoded: &[u8]) -> Option<String> {
            use prost::Message as _;
            $(if message == stringify!($message) {
                return Some(format!("{:?}", $message::decode(encoded).unwrap()));
            })+
            None
        }
    };
}

redacted! {
    CreateUserRequest { request_id, email, display_name; password }
    LoginRequest { email; password }
    LoginResponse { token_type, expires_in, user; access_token, refresh_token }
    RefreshRequest { ; refresh_token }
    RefreshResponse { token_type, expires_in; access_token, refresh_token }
    LogoutRequest { ; refresh_token }
    ChangePasswordRequest { user_id; current_password, new_password, refresh_token }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Value};

    use super::debug_text;

    const CANARY: &str = "correct horse";

    /// `google.protobuf.FieldOptions.debug_redact`.
    fn is_secret(field: &FieldDescriptor) -> bool {
        field.options().get_field_by_name("debug_redact").is_some_and(|value| value.as_bool() == Some(true))
    }

    #[test]
    fn a_secret_of_any_message_is_not_in_its_debug_text() {
        let pool = DescriptorPool::decode(crate::FILE_DESCRIPTOR_SET).unwrap();
        let mut seen = Vec::new();
        for message in pool.all_messages().filter(|message| message.fields().any(|field| is_secret(&field))) {
            let mut filled = DynamicMessage::new(message.clone());
            for field in message.fields().filter(is_secret) {
                filled.set_field(&field, Value::String(CANARY.into()));
            }
            let text = debug_text(message.name(), &filled.encode_to_vec());
            let text = text.unwrap_or_else(|| panic!("{} has no Debug of its own", message.full_name()));
            assert!(text.starts_with(message.name()) && !text.contains(CANARY), "{text}");
            seen.push(message.name().to_owned());
        }
        assert_eq!(seen.len(), 7, "{seen:?}");
    }
}
