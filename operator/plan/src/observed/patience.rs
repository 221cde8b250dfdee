/// Why the node lifecycle controller taints a Node with effect NoExecute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// Condition Ready is Unknown: nobody hears from it.
    Unreachable,
    /// Condition Ready is False.
    NotReady,
}

impl Silence {
    /// The key of the taint.
    pub fn taint(self) -> &'static str {
        match self {
            Self::Unreachable => "node.kubernetes.io/unreachable",
            Self::NotReady => "node.kubernetes.io/not-ready",
        }
    }
}

/// How long a pod stays on a Node with such a taint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Patience {
    /// It tolerates it for good.
    #[default]
    Forever,
    /// `tolerationSeconds`; 0 without a toleration.
    Seconds(u32),
}

/// A pod's patience with each of the two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patiences {
    /// With [`Silence::Unreachable`].
    pub unreachable: Patience,
    /// With [`Silence::NotReady`].
    pub not_ready: Patience,
}
