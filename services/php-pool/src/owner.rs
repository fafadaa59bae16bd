//! The user that PHP runs as.

/// A user and a group of the kernel's.
pub type Owner = (u32, u32);

/// There is no such user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no user of that name")]
pub struct NoUser;

/// The user and primary group of `user`: a name of /etc/passwd, or `uid:gid`. `None` for an empty one: PHP then runs as the user
/// that php-pool has.
///
/// # Errors
/// When /etc/passwd does not have the name.
pub fn look_up(user: &str) -> Result<Option<Owner>, NoUser> {
    if user.is_empty() {
        return Ok(None);
    }
    let numbers = |uid: &str, gid: &str| Some((uid.parse().ok()?, gid.parse().ok()?));
    let found = match user.split_once(':') {
        Some((uid, gid)) => numbers(uid, gid),
        None => std::fs::read_to_string("/etc/passwd").unwrap_or_default().lines().find_map(|line| {
            let mut parts = line.split(':');
            if parts.next()? != user {
                return None;
            }
            let _password = parts.next()?;
            numbers(parts.next()?, parts.next()?)
        }),
    };
    found.map(Some).ok_or(NoUser)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_names_or_numbers() {
        assert_eq!(look_up(""), Ok(None));
        assert_eq!(look_up("33:44"), Ok(Some((33, 44))));
        assert_eq!(look_up("root"), Ok(Some((0, 0))));
        assert_eq!(look_up("nobody-here"), Err(NoUser));
    }
}
