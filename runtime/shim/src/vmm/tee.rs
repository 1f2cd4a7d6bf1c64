//! What a confidential machine is made of beside the files of every machine.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nacre_configuration::Configuration;
use nacre_configuration::sections::Confidential;
use nacre_configuration::values::{self, HostDataSource, SimulatedPlatform};
use nacre_control::{FileIndex, HashFiles, IdBlockFiles, QuoteService, SimulatedTee, TeeConfig, TeePlatform};

use nacre_image::note;

use super::VmmError;
use crate::annotations;

/// The device of AMD's security processor.
const SEV_DEVICE: &str = "/dev/sev";

/// A confidential machine's own files and values.
#[derive(Debug)]
pub struct Tee {
    platform: Platform,
    stage0: File,
    policy: u64,
    host_data: [u8; 32],
    id_block: Option<(File, File)>,
    /// Where hashes of kernel and initrd are remembered; without it each start computes them.
    hashes: Option<(File, File)>,
}

#[derive(Debug)]
enum Platform {
    /// With a key for reports, if there is one.
    Simulated(SimulatedTee, Option<File>),
    /// The device, without which the VMM says what else is missing, and certificates for reports.
    Snp(Option<File>, Option<File>),
    /// Who makes quotes; without anybody there are none.
    Tdx(Option<Quotes>),
}

#[derive(Debug)]
enum Quotes {
    /// A unix socket, as a path that the VMM need not name.
    Socket(File),
    Vsock {
        cid: u32,
        port: u32,
    },
}

impl Quotes {
    /// `None` where there is no such socket: a guest does without quotes until it asks for one.
    fn new(service: &values::QuoteService) -> Option<Self> {
        Some(match service {
            values::QuoteService::Unix(path) => Self::Socket(
                OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path.as_path()).ok()?,
            ),
            values::QuoteService::Vsock { cid, port } => Self::Vsock { cid: *cid, port: *port },
        })
    }

    fn config<'a>(&'a self, add: &mut impl FnMut(BorrowedFd<'a>) -> FileIndex) -> QuoteService {
        match self {
            Self::Socket(path) => QuoteService::Socket(add(path.as_fd())),
            Self::Vsock { cid, port } => QuoteService::Vsock { cid: *cid, port: *port },
        }
    }
}

impl Tee {
    /// What the configuration and the pod's annotations ask for; `None` for a machine without confidential memory.
    ///
    /// # Errors
    /// A file that can't be opened, an annotation that is no host data, or one half of an ID block.
    pub fn new(
        configuration: &Configuration,
        annotations: Option<&HashMap<String, String>>,
    ) -> Result<Option<Self>, VmmError> {
        let platform = match configuration.vm.tee {
            values::Tee::None => return Ok(None),
            values::Tee::Simulated => simulated(&configuration.confidential)?,
            values::Tee::Snp => {
                let certificates = configuration.confidential.certificates.get();
                Platform::Snp(
                    OpenOptions::new().read(true).write(true).open(SEV_DEVICE).ok(),
                    certificates.map(|path| open("the table of certificates", path)).transpose()?,
                )
            }
            values::Tee::Tdx => Platform::Tdx(Quotes::new(&configuration.confidential.quote_service)),
        };
        let confidential = &configuration.confidential;
        let id_block = match (confidential.id_block.get(), confidential.id_auth.get()) {
            (None, None) => None,
            // A block is for SEV-SNP's measurement; TDX has no firmware that would compare.
            (Some(_), Some(_))
                if matches!(platform, Platform::Tdx(_) | Platform::Simulated(SimulatedTee::Tdx, _)) =>
            {
                None
            }
            (Some(block), Some(authentication)) => {
                Some((open("the ID block", block)?, open("the ID authentication", authentication)?))
            }
            _ => return Err(VmmError::IdBlockIncomplete),
        };
        let host_data = match confidential.host_data {
            HostDataSource::None => [0; 32],
            HostDataSource::Annotation => host_data(annotations)?,
        };
        Ok(Some(Self {
            platform,
            stage0: open("stage0", &configuration.guest.stage0)?,
            policy: confidential.policy.bits(),
            host_data,
            id_block,
            hashes: hashes(configuration),
        }))
    }

    /// The VMM's description of it, with the files that `add` numbers.
    pub fn config<'a>(&'a self, add: &mut impl FnMut(BorrowedFd<'a>) -> FileIndex) -> TeeConfig {
        TeeConfig {
            platform: match &self.platform {
                Platform::Simulated(tee, key) => {
                    TeePlatform::Simulated { tee: *tee, key: key.as_ref().map(|key| add(key.as_fd())) }
                }
                Platform::Snp(sev, certificates) => TeePlatform::Snp {
                    sev: sev.as_ref().map(|sev| add(sev.as_fd())),
                    certificates: certificates.as_ref().map(|file| add(file.as_fd())),
                },
                Platform::Tdx(quotes) => {
                    TeePlatform::Tdx { quotes: quotes.as_ref().map(|quotes| quotes.config(add)) }
                }
            },
            stage0: add(self.stage0.as_fd()),
            policy: self.policy,
            host_data: self.host_data,
            id_block: self.id_block.as_ref().map(|(block, authentication)| IdBlockFiles {
                block: add(block.as_fd()),
                authentication: add(authentication.as_fd()),
            }),
            hashes: self.hashes.as_ref().map(|(kernel, initrd)| HashFiles {
                kernel: add(kernel.as_fd()),
                initrd: add(initrd.as_fd()),
            }),
        }
    }
}

fn open(what: &'static str, path: &Path) -> Result<File, VmmError> {
    File::open(path).map_err(|source| VmmError::Open { what, path: path.into(), source })
}

/// Notes for the files that are hashed. A node that can't keep any hashes them at each start, which is only slower.
fn hashes(configuration: &Configuration) -> Option<(File, File)> {
    let folder = &configuration.image.cache_path;
    let of = |path: &Path| {
        let file = path.metadata().ok()?;
        note(folder, &format!("sha256-{:x}-{:x}", file.dev(), file.ino())).ok()
    };
    of(&configuration.guest.kernel).zip(of(&configuration.guest.initrd))
}

fn simulated(confidential: &Confidential) -> Result<Platform, VmmError> {
    let (tee, key) = match confidential.simulated_platform {
        SimulatedPlatform::Snp => (SimulatedTee::Snp, &confidential.simulated_key),
        SimulatedPlatform::Tdx => (SimulatedTee::Tdx, &confidential.simulated_tdx_key),
    };
    Ok(Platform::Simulated(tee, open_if_there(key)?))
}

/// The simulated platform's key; a node that never made one has guests without reports.
fn open_if_there(path: &Path) -> Result<Option<File>, VmmError> {
    match open("the simulated platform's key", path) {
        Ok(file) => Ok(Some(file)),
        Err(VmmError::Open { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn host_data(annotations: Option<&HashMap<String, String>>) -> Result<[u8; 32], VmmError> {
    let Some(text) = annotations.and_then(|map| map.get(annotations::HOST_DATA)) else { return Ok([0; 32]) };
    let digits = |index: usize| text.get(2 * index..2 * index + 2);
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        let parsed = digits(index).filter(|pair| pair.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let parsed = parsed.and_then(|pair| u8::from_str_radix(pair, 16).ok());
        *byte = parsed.filter(|_| text.len() == 64).ok_or(VmmError::HostData)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotated(text: &str) -> Result<[u8; 32], VmmError> {
        host_data(Some(&HashMap::from([(annotations::HOST_DATA.to_owned(), text.to_owned())])))
    }

    #[test]
    fn host_data_are_64_digits_or_none() {
        assert_eq!(host_data(None).unwrap(), [0; 32]);
        assert_eq!(annotated(&"0a".repeat(32)).unwrap(), [10; 32]);
        for wrong in ["", "0a", &"0a".repeat(33), &"+a".repeat(32), &"é".repeat(32)] {
            assert!(matches!(annotated(wrong), Err(VmmError::HostData)), "{wrong}");
        }
    }

    #[test]
    fn hashes_are_remembered_for_each_version_of_a_file_beside_the_layers() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| {
            values::AbsolutePath::try_from(folder.path().join(name).display().to_string()).unwrap()
        };
        let mut configuration = Configuration::default();
        configuration.image.cache_path = path("layers");
        configuration.guest.kernel = path("vmlinux");
        configuration.guest.initrd = path("initrd.img");
        assert!(hashes(&configuration).is_none(), "there are no files");
        for name in ["vmlinux", "initrd.img"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let inode = |file: &File| file.metadata().unwrap().ino();
        let (kernel, initrd) = hashes(&configuration).unwrap();
        let (again, _) = hashes(&configuration).unwrap();
        assert_ne!(inode(&kernel), inode(&initrd));
        assert_eq!(inode(&kernel), inode(&again));
        let names = std::fs::read_dir(folder.path().join("layers")).unwrap();
        assert!(names.flatten().all(|entry| entry.path().extension().is_some_and(|end| end == "note")));
    }

    #[test]
    fn the_quoting_services_socket_is_handed_over_if_there_is_one() {
        use std::os::unix::net::UnixListener;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("qgs.socket");
        let service = values::QuoteService::try_from(format!("unix:{}", path.display())).unwrap();
        assert!(Quotes::new(&service).is_none());
        let _listener = UnixListener::bind(&path).unwrap();
        let quotes = Quotes::new(&service).unwrap();
        let mut files = 0;
        let config = quotes.config(&mut |_| {
            files += 1;
            FileIndex(7)
        });
        assert_eq!((config, files), (QuoteService::Socket(FileIndex(7)), 1));
    }

    #[test]
    fn an_id_block_without_its_authentication_is_refused() {
        let mut configuration = Configuration::default();
        configuration.vm.tee = values::Tee::Simulated;
        configuration.confidential.id_block = "/id-block".to_owned().try_into().unwrap();
        assert!(matches!(Tee::new(&configuration, None), Err(VmmError::IdBlockIncomplete)));
    }
}
