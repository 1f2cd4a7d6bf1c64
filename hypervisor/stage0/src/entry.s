# The entry: from 32 bits without paging to 64 bits with it. Intel syntax; the names in braces are constants of the
# ABI crate.
#
# EDI says what machine this is, ESI which CPU. Nothing else is known, and there is no stack.

.section .reset, "ax"
.code32
    jmp entry32

.section .entry, "awx"
.code32
entry32:
    # Only the first CPU may come here, and once: a host can start any CPU of an SEV-SNP guest at any time.
    test esi, esi
    jnz second_entry
    mov eax, 1
    xchg dword ptr [entered], eax
    test eax, eax
    jnz second_entry
    xor ebp, ebp
    cmp edi, {TAG_PLAIN}
    je make_tables
    cmp edi, {TAG_SNP}
    jne unknown_machine

    # SEV-SNP: take the scratch memory into use. A page that was valid before (carry) is an attack.
    mov ebx, {SCRATCH_START}
validate:
    mov eax, ebx
    xor ecx, ecx
    mov edx, 1
    .byte 0xf2, 0x0f, 0x01, 0xff    # pvalidate
    jc not_validated
    test eax, eax
    jnz not_validated
    # Lines of the page that the cache holds from before must not be used (CVE-2025-38560).
    mov eax, dword ptr [ebx]
    mov eax, dword ptr [ebx + 0xffc]
    add ebx, 0x1000
    cmp ebx, {SCRATCH_END}
    jb validate

    # EBP is the upper half of the encryption bit. The parameters page is measured; everything that is read
    # without paging is private.
    mov ecx, dword ptr [{ENCRYPTION_BIT}]
    sub ecx, 39
    cmp ecx, 51 - 39
    ja no_encryption_bit
    add ecx, 39 - 32
    bts ebp, ecx

make_tables:
    # The tables' six pages, with the entries for the first 2 MiB and for the last 2 MiB below 4 GiB.
    mov esi, edi
    mov edi, {PAGE_TABLES}
    xor eax, eax
    mov ecx, 6 * 1024
    rep stosd
    mov dword ptr [{PAGE_TABLES}], {PAGE_TABLES} + 0x1023
    mov dword ptr [{PAGE_TABLES} + 4], ebp
    mov dword ptr [{PAGE_TABLES} + 0x1000], {PAGE_TABLES} + 0x2023
    mov dword ptr [{PAGE_TABLES} + 0x1004], ebp
    mov dword ptr [{PAGE_TABLES} + 0x1018], {PAGE_TABLES} + 0x5023
    mov dword ptr [{PAGE_TABLES} + 0x101c], ebp
    mov dword ptr [{PAGE_TABLES} + 0x2000], 0xe3
    mov dword ptr [{PAGE_TABLES} + 0x2004], ebp
    mov dword ptr [{PAGE_TABLES} + 0x5ff8], 0xffe000e3
    mov dword ptr [{PAGE_TABLES} + 0x5ffc], ebp

    # Bits are added to what is there: a TDX module does not let go of some. PAE, OSFXSR, OSXMMEXCPT.
    mov eax, cr4
    or eax, 0x620
    mov cr4, eax
    mov eax, {PAGE_TABLES}
    mov cr3, eax
    # EFER.LME, written only if it is not set.
    mov ecx, 0xc0000080
    rdmsr
    bts eax, 8
    jc long_mode_enabled
    wrmsr
long_mode_enabled:
    lgdt [gdt_pointer]
    # Paging and MP on, EM and TS off.
    mov eax, cr0
    and eax, 0xfffffff3
    or eax, 0x80000003
    mov cr0, eax
    .byte 0xea                      # jmp 0x10:entry64
    .long entry64
    .word 0x10

second_entry:
    mov eax, {SECOND_ENTRY_PORT}
    mov ebx, {SECOND_ENTRY_GHCB}
    jmp stop
not_validated:
    mov ebx, {NOT_VALIDATED_GHCB}
    jmp stop
no_encryption_bit:
    mov ebx, {NO_ENCRYPTION_BIT_GHCB}
stop:
    cmp edi, {TAG_PLAIN}
    jne stop_not_plain
    mov edx, {STOP_PORT}
    out dx, eax
halt:
    hlt
    jmp halt
stop_not_plain:
    cmp edi, {TAG_SNP}
    jne unknown_machine
    mov eax, ebx
    xor edx, edx
    mov ecx, 0xc0010130             # the GHCB's MSR
    wrmsr
    .byte 0xf3, 0x0f, 0x01, 0xd9    # vmgexit
unknown_machine:
    # Nobody can be told. Without an IDT this is a shutdown.
    ud2

.code64
entry64:
    mov eax, 0x18
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov ss, eax
    mov esp, {STACK}
    mov edi, esi
    call start
    ud2

# Linux wants its code segment at 0x10 and its data segment at 0x18. The accessed bits are set beforehand.
.balign 8
gdt:
    .quad 0
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
gdt_pointer:
    .word 31
    .long gdt
.balign 4
entered:
    .long 0
