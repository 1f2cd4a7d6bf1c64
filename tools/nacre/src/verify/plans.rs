//! The measurements that are acceptable.

use std::path::Path;

use nacre_configuration::Loaded;
use nacre_launch::{Measurement, RuntimeMeasurements};

use crate::hex;
use crate::measure::{self, Reference, TeeName, Wanted, references};

/// A measurement that is acceptable.
#[derive(Debug, Clone)]
pub struct Acceptable {
    /// The technology that has it; any, if not known.
    pub tee: Option<TeeName>,
    /// The measurement.
    pub measurement: Measurement,
    /// Whose it is, in words.
    pub whose: String,
    /// What stage0 makes of a TDX guest's registers, if that is known.
    pub runtime: Option<RuntimeMeasurements>,
}

/// Those that were given.
pub fn given(measurements: &[Measurement]) -> Vec<Acceptable> {
    let acceptable = |measurement: &Measurement| Acceptable {
        tee: None,
        measurement: *measurement,
        whose: "the expected one".to_owned(),
        runtime: None,
    };
    measurements.iter().map(acceptable).collect()
}

/// The acceptable one that this measurement of a technology's guest is.
pub fn find<'a>(found: &[u8; 48], tee: TeeName, measurements: &'a [Acceptable]) -> Option<&'a Acceptable> {
    measurements
        .iter()
        .find(|acceptable| acceptable.measurement.0 == *found && acceptable.tee.is_none_or(|of| of == tee))
}

/// Whose this measurement of a technology's guest is; wrong if it is not acceptable.
///
/// # Errors
/// It is none of them, in words.
pub fn judge(found: &[u8; 48], tee: TeeName, measurements: &[Acceptable]) -> Result<String, String> {
    let matching = find(found, tee, measurements);
    let found = hex::text(found);
    match (matching, measurements) {
        (Some(acceptable), _) => Ok(format!("{found}, {}", acceptable.whose)),
        (None, [one]) => Err(format!("{found}, expected is {}", one.measurement)),
        (None, _) => Err(format!("{found}, none of the {} that are acceptable", measurements.len())),
    }
}

/// Those of all sizes that pods of this technology can have.
///
/// # Errors
/// There are no plans.
pub fn of_all_sizes(config: Option<&Path>, tee: TeeName) -> Result<Vec<Acceptable>, measure::Error> {
    let loaded = config.map_or_else(Loaded::load, Loaded::load_from)?;
    let configuration = loaded.configuration;
    let memory_mib = configuration.confidential.memory_mib.as_slice().to_vec();
    let wanted = Wanted { tee: Some(tee), memory_mib, ..Wanted::default() };
    let acceptable = |reference: Reference| Acceptable {
        tee: Some(tee),
        measurement: reference.plan.measurement(),
        whose: format!(
            "that of a guest with {} vCPUs and {} MiB ({tee})",
            reference.vcpus, reference.memory_mib
        ),
        runtime: reference.runtime,
    };
    Ok(references(&configuration, &wanted)?.into_iter().map(acceptable).collect())
}
