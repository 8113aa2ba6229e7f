//! Scenarios of rollouts.
