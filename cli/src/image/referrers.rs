//! `trimtab image referrers`: what a registry knows to refer to an image.

use anyhow::Result;
use runtime_image::{Platform, Referrer, Registries, referrers};

use super::{Output, login, show};

/// Prints what refers to what a reference names.
pub(super) async fn run(
    reference: &str,
    platform: Option<&Platform>,
    artifact_type: Option<&str>,
    output: Option<Output>,
    mut registries: Registries,
) -> Result<()> {
    let auth = login::of(reference, &mut registries)?;
    let found = referrers(reference, platform, artifact_type, &auth, &registries).await?;
    match output {
        Some(Output::Json) => println!("{}", serde_json::to_string_pretty(&found)?),
        None => {
            println!("{HEADING}");
            found.iter().for_each(|referrer| println!("{}", line(referrer)));
        }
    }
    Ok(())
}

const HEADING: &str = "DIGEST                                                                       SIZE  TYPE";

fn line(referrer: &Referrer) -> String {
    let kind = if referrer.artifact_type.is_empty() { &referrer.media_type } else { &referrer.artifact_type };
    // It is a stranger's word.
    let kind: String = kind.chars().filter(|letter| !letter.is_control()).collect();
    format!("{} {:>9}  {kind}", referrer.digest, show::size(referrer.size_bytes))
}
