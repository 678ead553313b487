//! Which ways between two ends are cut.

/// What does not get through between an end and another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing does.
    Both,
    /// What it says is lost; what it is told arrives.
    Out,
    /// What it is told is lost; what it says arrives.
    In,
}

impl Cut {
    /// Whether what an end says arrives.
    pub fn lets_out(cut: Option<Cut>) -> bool {
        matches!(cut, None | Some(Cut::In))
    }

    /// Whether what an end is told arrives.
    pub fn lets_in(cut: Option<Cut>) -> bool {
        matches!(cut, None | Some(Cut::Out))
    }

    /// As the other end sees it.
    pub fn turned(self) -> Cut {
        match self {
            Cut::Both => Cut::Both,
            Cut::Out => Cut::In,
            Cut::In => Cut::Out,
        }
    }
}
