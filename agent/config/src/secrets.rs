//! What must not stand in a launch template's user data: it is readable by every read-only role of
//! the account and by whoever reaches the instance metadata service.

/// Why a value of this name must not be written down, if it must not.
///
/// `name` is an environment variable or an `ECS_*` key, `value` its literal value.
pub fn literal(name: &str, value: &str) -> Option<&'static str> {
    const WORDS: &[&str] = &[
        "PASSWORD",
        "PASSWD",
        "SECRET",
        "TOKEN",
        "CREDENTIAL",
        "PRIVATE_KEY",
        "API_KEY",
        "APIKEY",
        "ACCESS_KEY",
    ];
    /// Names that only look like secrets: they say where one is, or how long.
    const HARMLESS: &[&str] = &[
        "_ARN",
        "_NAME",
        "_FILE",
        "_PATH",
        "_URL",
        "_TTL",
        "_PARAMETER",
        "_HOST",
        "_HOST_DIR",
    ];

    if name == "ECS_ENGINE_AUTH_DATA" {
        return Some("holds registry credentials");
    }
    if value.contains("-----BEGIN") && value.contains("PRIVATE KEY") {
        return Some("holds a private key");
    }
    if is_access_key_id(value) {
        return Some("holds an AWS access key");
    }
    if has_password_in_url(value) {
        return Some("holds a user and password in a URL");
    }
    let upper = name.to_ascii_uppercase();
    let looks_secret = WORDS.iter().any(|word| upper.contains(word))
        && !HARMLESS.iter().any(|end| upper.ends_with(end));
    (looks_secret
        && !value.is_empty()
        && !upper.starts_with("ECS_")
        && !upper.starts_with("CREDENTIALS_FETCHER"))
    .then_some("is named like a secret and has a literal value")
}

fn is_access_key_id(value: &str) -> bool {
    value.len() == 20
        && (value.starts_with("AKIA") || value.starts_with("ASIA"))
        && value
            .bytes()
            .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

/// `scheme://user:password@host`, also after a space or an equals sign.
fn has_password_in_url(value: &str) -> bool {
    value.split("://").skip(1).any(|rest| {
        let authority = rest.split(['/', '?', '#', ' ', '"']).next().unwrap_or("");
        authority
            .rsplit_once('@')
            .is_some_and(|(user, _)| user.split_once(':').is_some_and(|(_, p)| !p.is_empty()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_secrets_and_leaves_references_alone() {
        for (name, value) in [
            ("ECS_ENGINE_AUTH_DATA", "{}"),
            ("HTTP_PROXY", "http://me:pw@proxy:3128"),
            ("DB_PASSWORD", "hunter2"),
            ("github_token", "x"),
            ("X", "AKIAIOSFODNN7EXAMPLE"),
            ("X", "-----BEGIN RSA PRIVATE KEY-----"),
        ] {
            assert!(literal(name, value).is_some(), "{name}={value}");
        }
        for (name, value) in [
            ("HTTP_PROXY", "http://proxy:3128"),
            ("DB_PASSWORD", ""),
            ("DB_PASSWORD_FILE", "/run/secrets/db"),
            ("TOKEN_TTL", "60"),
            ("ECS_ENABLE_TASK_IAM_ROLE", "true"),
            ("URL", "http://host/path:a@b"),
        ] {
            assert_eq!(literal(name, value), None, "{name}={value}");
        }
    }
}
