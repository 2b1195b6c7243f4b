//! The answer to `-classad`: what this plugin is.

use classad::ClassAd;

use crate::attributes;
use crate::remote::SCHEME;

/// The newest version of the protocol. An older HTCondor reads past it and speaks version 2, which differs only in what it
/// leaves out.
const PROTOCOL: i32 = 4;

/// Printed one attribute per line, as HTCondor reads it. 23.9 drops a plugin with any other line.
pub(super) fn ad() -> ClassAd {
    let mut ad = ClassAd::new();
    ad.insert("MultipleFileSupport", true);
    ad.insert("PluginType", "FileTransfer");
    ad.insert("PluginVersion", env!("CARGO_PKG_VERSION"));
    ad.insert("ProtocolVersion", PROTOCOL);
    ad.insert("SupportedMethods", SCHEME);
    // What is named here the startd puts into its slots' ads.
    ad.insert("StartdAttrs", attributes::TRANSFER_VERSION);
    ad.insert(attributes::TRANSFER_VERSION, env!("CARGO_PKG_VERSION"));
    ad
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_an_attribute() {
        let text = ad().to_old();
        assert!(text.lines().all(|line| line.contains(" = ")), "{text}");
        for line in [
            "MultipleFileSupport = true",
            "PluginType = \"FileTransfer\"",
            "ProtocolVersion = 4",
            "SupportedMethods = \"criu\"",
            "StartdAttrs = \"CRIUTransferVersion\"",
        ] {
            assert!(text.lines().any(|has| has == line), "{line} in {text}");
        }
    }
}
