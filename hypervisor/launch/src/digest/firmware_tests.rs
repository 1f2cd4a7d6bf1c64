//! Digests of a whole firmware image as QEMU launches it, computed with `sev-snp-measure` 0.0.13 and the crate `sev` 8.0.0:
//! thousands of pages of all kinds, and CPUs that start in two places.
//!
//! The image is Debian's. Where `cargo xtask test` could not fetch it, the test says so by its name.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use rstest::rstest;
use sha2::Sha256;

use super::test_vectors::{GENOA, MILAN, ZEROS, qemu_reset};
use super::*;
use crate::cpu_state::Segment;

const EPYC_V4: u64 = 0x0080_0f12;
const TURIN: u64 = 0x00b0_0f00;

const IMAGE: &str = "OVMF.amdsev.fd";
const IMAGE_SHA256: &str = "3e4fd0b3fe3b2dbe481c3d9e99418a034174f26cbe1f55aa212b0f18c12d2d6f";

/// The image's end is at 4 GiB.
const END: u64 = 1 << 32;

#[rstest]
#[case::epyc_v4(EPYC_V4, [
    "d74bd3ea40b240c3228edc5177ce6193561ebff633dbd0be76d6c143b876d65102425c0e2e8a930857c48daa5eacda58",
    "a3c946257b3cef8f1e25dd03cb84f9f01313ae9135c32acc7e01f4204aa447aaa196530d5999be0f114462d2546cd02d",
    "13a6ae9fbaa31c91ade309c36bd5214729438abac318e01176e02a97b8bec11a4bce86b4d2b1fba2ec0481dd24ff525f",
])]
#[case::milan(MILAN, [
    "4a7f0dc0ad7c8fc19a056d1f78c6ccc2dda5c69aef1b063650d94598084b89a89a5e295aceb08223b8ddd027620dbe66",
    "54a8c0dd731ffacb4980b3bf926adcbfef705146fdf443ca2a03c3104610a8add28b31c86df235618a610a94797f056d",
    "c995d6122aacbc0434128f0c63783f03b7caec3f8f4292948522a00c0395ff126f1633d8346a20aa85f8dd3bd8739a38",
])]
#[case::genoa(GENOA, [
    "56b84ad0703ad6b060b4959b01ee47ce28c6bab89236da281671fce41417b249649e5181189ed4dd7b08fb181cca9ada",
    "237d08f6443ab3f7310ffd20b6cc30ec3c0356324a052ca682c16c8c8dcc223865c5c1b7eabb26b63f315e28c5cc6614",
    "d505c9acd20a52ed0afd3e763d3b7b1bdd695d54d588a3e9d7957b803b457602332d5911781485b552cbbed90a20f235",
])]
#[case::turin(TURIN, [
    "f37aa18d4893c89479a0711555e94317461460328b5af613f3c4737b38e30d0a71abd691e66fef6c2fb93fa53a3bd462",
    "9e8497a436965d903a06356d87497f68909f750501a696c2270cf48e42c44e10feeab11bda1b3b8f2ef07e46278b36f7",
    "d91d3c8cc27707d25027b79f6f93c15a86d4c41d0d04ea2ea51eb25eb6118f8f1cb731fc82f220fed80cdb22559270ac",
])]
fn a_firmware_has_the_known_digests_for_one_two_and_four_cpus(
    #[case] signature: u64,
    #[case] expected: [&str; 3],
) {
    let Some(image) = image() else { return };
    assert_eq!([1, 2, 4].map(|cpus| digest(&image, signature, cpus, None)), expected);
}

#[test]
fn a_firmware_that_checks_a_kernel_has_the_known_digests() {
    let Some(image) = image() else { return };
    let hashes = hashes();
    assert_eq!(
        [1, 2, 4].map(|cpus| digest(&image, MILAN, cpus, Some(&hashes))),
        [
            "c449d7b385452c390be9779b6f32b121ddde3fdc0a99643a258131abd8354f39920a2361da34e3691808192ecc950817",
            "6a829b4b605f53aa535bc16d387b6902f783331069d39ea2d6899126da959136f968668898dff6a8e00c83521375bf23",
            "d0f013725320d44c078c6b38b6f73bb48b0095b35a1bd2e0568a222d654dc020d4c9956070cbfac732069b9a7244ef1f",
        ]
    );
    assert_eq!(
        digest(&image, GENOA, 1, Some(&hashes)),
        "d8d01eb4f82abdacfa793c8319344acb738152dbae4729b94e7beb109c090e9f56f2aa340846ac474bb9c4288a156c46"
    );
}

/// The image, or nothing after having said why.
fn image() -> Option<Vec<u8>> {
    let found = std::env::var_os("NACRE_FIRMWARE")
        .ok_or_else(|| "`cargo xtask test` fetches Debian's firmware".to_owned())
        .and_then(|folder| {
            let path = PathBuf::from(folder).join(IMAGE);
            fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
        })
        .and_then(|image| {
            let sha256: String = Sha256::digest(&image).iter().map(|byte| format!("{byte:02x}")).collect();
            if sha256 == IMAGE_SHA256 { Ok(image) } else { Err(format!("{IMAGE} is another one: {sha256}")) }
        });
    match found {
        Ok(image) => Some(image),
        Err(why) => {
            let name = std::thread::current().name().unwrap_or("?").to_owned();
            let _ = writeln!(std::io::stderr(), "NOT RUN HERE {name}: {why}");
            None
        }
    }
}

fn digest(image: &[u8], signature: u64, cpus: usize, hashes: Option<&[u8; 4096]>) -> String {
    let mut digest = LaunchDigest::new();
    let start = END - u64::try_from(image.len()).unwrap();
    for (page, gpa) in image.chunks_exact(4096).zip((start..).step_by(4096)) {
        digest.add_page(gpa, PageKind::Normal, page.try_into().unwrap());
    }
    for [gpa, len, kind] in sections(image) {
        let (kind, content) = match (kind, hashes) {
            // Memory of the first code, and of a service module below it that is not there.
            (1 | 4, _) | (0x10, None) => (PageKind::Zero, &ZEROS),
            (2, _) => (PageKind::Secrets, &ZEROS),
            (3, _) => (PageKind::Cpuid, &ZEROS),
            (0x10, Some(hashes)) => (PageKind::Normal, hashes),
            other => panic!("a section of an unknown kind: {other:?}"),
        };
        for gpa in (gpa..gpa + len).step_by(4096) {
            digest.add_page(gpa.into(), kind, content);
        }
    }
    let others = word(entry(image, OTHERS), 0);
    (0..cpus)
        .fold(digest.into_cpus(), |digest, number| {
            let first = qemu_reset(signature);
            let other = CpuState {
                cs: Segment { base: (others & 0xffff_0000).into(), ..first.cs },
                rip: (others & 0xffff).into(),
                ..first.clone()
            };
            digest.add_cpu(if number == 0 { &first } else { &other })
        })
        .finish()
        .to_string()
}

/// Names of entries in the image's table: where other CPUs start, and what of memory the first code wants.
const OTHERS: [u8; 16] =
    [0xde, 0x71, 0xf7, 0x00, 0x7e, 0x1a, 0xcb, 0x4f, 0x89, 0x0e, 0x68, 0xc7, 0x7e, 0x2f, 0xb4, 0x4e];
const SECTIONS: [u8; 16] =
    [0x66, 0x65, 0x88, 0xdc, 0x4a, 0x98, 0x98, 0x47, 0xa7, 0x5e, 0x55, 0x85, 0xa7, 0xbf, 0x67, 0xcc];

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().unwrap())
}

/// Address, length and kind of each (OVMF's `OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm`).
fn sections(image: &[u8]) -> Vec<[u32; 3]> {
    let from_end = usize::try_from(word(entry(image, SECTIONS), 0)).unwrap();
    let metadata = &image[image.len() - from_end..];
    assert_eq!(&metadata[..4], b"ASEV");
    let count = usize::try_from(word(metadata, 12)).unwrap();
    (0..count).map(|number| [0, 4, 8].map(|place| word(metadata, 16 + 12 * number + place))).collect()
}

/// What an entry of the image's table holds. The table ends 32 bytes before the image, and is read from its end: the name and
/// the length of an entry are behind what it holds.
fn entry(image: &[u8], wanted: [u8; 16]) -> &[u8] {
    let mut end = image.len() - 0x20 - 18;
    loop {
        let length = usize::from(u16::from_le_bytes(*image[end - 18..].first_chunk().unwrap()));
        if image[end - 16..end] == wanted {
            return &image[end - length..end - 18];
        }
        end -= length;
    }
}

/// The page of hashes that QEMU makes for a kernel, an initrd and a command line. The table begins at 0xc00: its name and
/// length, then three times name, length and hash.
fn hashes() -> [u8; 4096] {
    const TABLE: [u8; 16] =
        [0x06, 0xd6, 0x38, 0x94, 0x22, 0x4f, 0xc9, 0x4c, 0xb4, 0x79, 0xa7, 0x93, 0xd4, 0x11, 0xfd, 0x21];
    const COMMAND_LINE: [u8; 16] =
        [0xd8, 0x2d, 0xd0, 0x97, 0x20, 0xbd, 0x94, 0x4c, 0xaa, 0x78, 0xe7, 0x71, 0x4d, 0x36, 0xab, 0x2a];
    const INITRD: [u8; 16] =
        [0x31, 0xf7, 0xba, 0x44, 0x2f, 0x3a, 0xd7, 0x4b, 0x9a, 0xf1, 0x41, 0xe2, 0x91, 0x69, 0x78, 0x1d];
    const KERNEL: [u8; 16] =
        [0x37, 0x94, 0xe7, 0x4d, 0xd2, 0xab, 0x7f, 0x42, 0xb8, 0x35, 0xd5, 0xb1, 0x72, 0xd2, 0x04, 0x5b];
    let mut table = [TABLE.as_slice(), &168_u16.to_le_bytes()].concat();
    let parts: [([u8; 16], &[u8]); 3] = [
        (COMMAND_LINE, b"console=ttyS0\0"),
        (INITRD, b"nacre-test-initrd\n"),
        (KERNEL, b"nacre-test-kernel\n"),
    ];
    for (name, content) in parts {
        table.extend([name.as_slice(), &50_u16.to_le_bytes(), &Sha256::digest(content)].concat());
    }
    let mut page = ZEROS;
    page[0xc00..][..table.len()].copy_from_slice(&table);
    page
}
