//! Known digests: computed with `sev-snp-measure` 0.0.13, those with chosen states with `igvm` 0.5.0, too.

use rstest::rstest;

use super::test_vectors::*;
use super::*;

#[rstest]
#[case::s1(
    PageKind::Normal,
    ZEROS,
    0x1000,
    "e6e4d78904d9d6b33c0cbfd121998fd2d11744dae606b3aee35e2a45d6869b60b35c63928a9232bef72d6be386f48ec6"
)]
#[case::s2(
    PageKind::Normal,
    pattern(),
    0x1000,
    "d9ee416942ec5db1caf25b01cff7feaed0d7ac42422f811c6164e4857e3f800d270202f572ade105c96b3959107b8521"
)]
#[case::s3(
    PageKind::Zero,
    ZEROS,
    0x1000,
    "4bd4147976a1e7554c1c778a781affc1c672f1965a727ba16084989b7e356044a28bbe585a2f75dac9356fa5ab78f061"
)]
#[case::s4(
    PageKind::Unmeasured,
    pattern(),
    0x1000,
    "81475a112c0223cebe1ccb31a0aa2567772871200b33515a3cbbd5ed6a68a8e630902dd83469ea6553554bfb67111fad"
)]
#[case::s5(
    PageKind::Secrets,
    ZEROS,
    0x5000,
    "ef9899d8ba6ec99c8748527a511496d3a9476ef776c08ca1b0e1e5742affd1ebc4e143a675b9ba7759b1b69d13dedecc"
)]
#[case::s6(
    PageKind::Cpuid,
    FILLED,
    0x6000,
    "f03e099dd4ecd1f9a097c7c32776e8885841fc4c6299e134dbf295c63e5c0ee6753b98bf20a295d6e84cc096bb5d588b"
)]
fn one_page_has_the_known_digest(
    #[case] kind: PageKind,
    #[case] content: [u8; 4096],
    #[case] gpa: u64,
    #[case] expected: &str,
) {
    let mut digest = LaunchDigest::new();
    digest.add_page(gpa, kind, &content);
    assert_eq!(digest.into_cpus().finish().to_string(), expected);
}

fn five_pages(third: (u64, PageKind)) -> CpuDigest {
    let mut digest = LaunchDigest::new();
    digest.add_page(0xffff_0000, PageKind::Normal, &FILLED);
    digest.add_page(0xffff_f000, PageKind::Normal, &pattern());
    digest.add_page(third.0, third.1, &ZEROS);
    digest.add_page(0x5000, PageKind::Secrets, &ZEROS);
    digest.add_page(0x6000, PageKind::Cpuid, &ZEROS);
    digest.into_cpus()
}

#[rstest]
#[case::s7_1(
    MILAN,
    1,
    "ec65c0428d7546768ed49ef2d3e1d53d0d7562cd0f13c021eb7bb03ebd7d316e6bd261a15003a1d43e226a721ac3e226"
)]
#[case::s7_2(
    MILAN,
    2,
    "c5463ce5a489ec8e0a43e54028f01d5e49bc7bd9cca566288e3044a4191e957feaf41ef31a529b417cdfb182d0427601"
)]
#[case::s7_4(
    MILAN,
    4,
    "3d33eeacfde7016f3d20d1504b507f1fc5ea8498e9ad801c1259d0d018555a57c80442c15488717bb7a1b48aecb3b4af"
)]
#[case::s8_1(
    GENOA,
    1,
    "d161f05ea3088c11e4a3938fd9c8ef892f14313a92310eae50bc67a95b25113a2b7f396365006919a1dfc30f440ac0bb"
)]
#[case::s8_2(
    GENOA,
    2,
    "4e5e77cbac298b2e53d0569e69ff6ec9723251e9a0d2948c716a4b16d4e91d01c0b32aa9b50faa3abc261bbb2e20ab6c"
)]
fn memory_and_reset_cpus_have_the_known_digest(
    #[case] signature: u64,
    #[case] vcpus: u32,
    #[case] expected: &str,
) {
    let cpu = qemu_reset(signature);
    let digest =
        (0..vcpus).fold(five_pages((0x8000, PageKind::Zero)), |digest, _| digest.add_cpu(&cpu)).finish();
    assert_eq!(digest.to_string(), expected);
}

#[rstest]
#[case::s9((0x8000, PageKind::Zero), &[vmsa64()], "1dde44416bfe5cf6e5001199291033dcf17314d3f5432b2f19c26afd89a238209e7f8b81525169e34345962f571758a4")]
#[case::s10((0x7000, PageKind::Unmeasured), &[vmsa32(0)], "c3cf44e010c05d315d4ec26490f3673ab85a4c8c643dd4c408a3300d81faf4b7a93fde66103d179ad58fd67b850cb288")]
#[case::s10b((0x7000, PageKind::Unmeasured), &[vmsa32(0), vmsa32(1)], "9d18519611efbc156d70e40ea9fd888d59df443e6fd3b436ad4e2cb396f8ef9f4546f3263d5c4f65e4725577a9aff948")]
#[case::s11((0x7000, PageKind::Unmeasured), &[vmsa64()], "0b5219d50900cdbe35dc0693bbf0ff979213130ae39fbbe6dfd613275d5b918f3de8aaed640b11898d389eaa6c6635df")]
fn memory_and_chosen_cpus_have_the_known_digest(
    #[case] third: (u64, PageKind),
    #[case] cpus: &[CpuState],
    #[case] expected: &str,
) {
    let digest = cpus.iter().fold(five_pages(third), CpuDigest::add_cpu).finish();
    assert_eq!(digest.to_string(), expected);
}

#[test]
fn stage0s_entry_is_the_state_whose_digest_is_known() {
    let digest = five_pages((0x7000, PageKind::Unmeasured));
    let digest = digest.add_cpu(&CpuState::stage0_snp(0)).add_cpu(&CpuState::stage0_snp(1)).finish();
    assert_eq!(
        digest.to_string(),
        "9d18519611efbc156d70e40ea9fd888d59df443e6fd3b436ad4e2cb396f8ef9f4546f3263d5c4f65e4725577a9aff948"
    );
}
