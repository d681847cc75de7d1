//! The details of a message's user beside the identity. The next grant passes them on to the platform.

use serde::Serialize;

use super::{InvalidMessage, UserId};

/// The longest first or last name, in bytes. A secure handshake carries the names in a header.
pub const NAME_MAX_BYTES: usize = 256;

/// The details of a message's user. Its Debug output shows none of them.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UserDetails {
    /// The name.
    #[serde(skip_serializing_if = "UserProfile::is_empty")]
    pub profile: UserProfile,
    /// The earlier identity of the same user, which the platform folds into this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge_with: Option<UserId>,
}

impl UserDetails {
    /// Returns whether nothing is told.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the approximate number of bytes of the texts.
    pub fn weight(&self) -> usize {
        let text = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
        text(&self.profile.first_name)
            + text(&self.profile.last_name)
            + self.merge_with.as_ref().map_or(0, |user| user.as_str().len())
    }
}

impl std::fmt::Debug for UserDetails {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserDetails").finish_non_exhaustive()
    }
}

/// The name of a user.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UserProfile {
    /// The first name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_name: Option<Box<str>>,
    /// The last name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_name: Option<Box<str>>,
}

impl UserProfile {
    /// Returns whether it holds no name.
    pub fn is_empty(&self) -> bool {
        self.first_name.is_none() && self.last_name.is_none()
    }

    /// Checks one of the names: 1 to [`NAME_MAX_BYTES`], without control characters.
    ///
    /// # Errors
    /// [`InvalidMessage::Name`].
    pub fn check(name: &str) -> Result<(), InvalidMessage> {
        let fits = (1..=NAME_MAX_BYTES).contains(&name.len()) && !name.chars().any(char::is_control);
        if fits { Ok(()) } else { Err(InvalidMessage::Name) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_out_of_bounds_is_refused() {
        for bad in ["", "a\nb", &"x".repeat(NAME_MAX_BYTES + 1)] {
            assert_eq!(UserProfile::check(bad), Err(InvalidMessage::Name), "{bad}");
        }
        assert!(UserProfile::check("Zoë").is_ok() && UserProfile::check(&"x".repeat(NAME_MAX_BYTES)).is_ok());
    }

    #[test]
    fn debug_output_shows_no_details() {
        let details = UserDetails {
            profile: UserProfile { first_name: Some("Zoë".into()), last_name: None },
            merge_with: UserId::new("visitor-7").ok(),
        };
        assert!(!details.is_empty() && details.weight() == 13);
        let shown = format!("{details:?}");
        assert!(!shown.contains("Zoë") && !shown.contains("visitor"), "{shown}");
    }
}
