use std::fmt;

/// One leader's time in office, as it stands in fences and cordons. Two leaders never have equal ones: not when the Lease
/// was deleted, restored or edited between them, and not when they belong to two installations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Term {
    /// `leaseTransitions` of the Lease.
    pub transitions: i32,
    /// Namespace of the Lease: one installation has one.
    pub installation: String,
    /// `holderIdentity` of the Lease; each process has its own.
    pub leader: String,
}

/// `<lease-transitions>/<namespace of the Lease>/<its holder>`.
impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.transitions, self.installation, self.leader)
    }
}

impl Term {
    /// The installation that wrote `written`, a term in this form, when it is another one than this. Versions before wrote
    /// the transitions alone; nobody else's are known then.
    pub fn other_installation<'a>(&self, written: &'a str) -> Option<&'a str> {
        let mut parts = written.splitn(3, '/').skip(1);
        let (installation, _leader) = (parts.next()?, parts.next()?);
        (installation != self.installation).then_some(installation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(installation: &str) -> Term {
        Term {
            transitions: 3,
            installation: installation.to_owned(),
            leader: "host_0123456789abcdef".to_owned(),
        }
    }

    #[test]
    fn another_installation_is_told_by_its_namespace() {
        assert_eq!(term("a").to_string(), "3/a/host_0123456789abcdef");
        assert_eq!(term("a").other_installation(&term("b").to_string()), Some("b"));
        assert_eq!(term("a").other_installation(&term("a").to_string()), None);
        for old in ["3", "", "x/y"] {
            assert_eq!(term("a").other_installation(old), None, "{old}");
        }
    }
}
