//! The public Xen interface as plain types: facts, no behaviour.
