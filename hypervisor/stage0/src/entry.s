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
    # The descriptor table of the first state is where a host may have left bytes. Without one every exception and
    # every interrupt, injected or not, is a shutdown.
    lidt [no_idt]
    test edi, edi
    jz tdx
    # Only the first CPU may come here, and once: a host can start any CPU of an SEV-SNP guest at any time.
    test esi, esi
    jnz second_entry
first_cpu:
    mov eax, 1
    xchg dword ptr [entered], eax
    test eax, eax
    jnz second_entry
    mov dword ptr [stage0_tag], edi
    mov ebx, edi
    xor ebp, ebp
    cmp edi, {TAG_SNP}
    je snp
    test edi, edi
    jz make_tables
    cmp edi, {TAG_PLAIN}
    je make_tables
unknown_machine:
    # Nobody can be told. Without an IDT this is a shutdown.
    ud2

tdx:
    # All CPUs of a TDX guest come here at once. The first one prepares what the others need.
    test esi, esi
    jz first_cpu
    mov ebx, edi
wait_for_release:
    pause
    cmp dword ptr [stage0_released], 0
    je wait_for_release
    jmp enable_paging

snp:
    # Take the scratch memory into use. A page that was valid before (carry) is an attack.
    mov esp, {SCRATCH_START}
validate:
    mov eax, esp
    xor ecx, ecx
    mov edx, 1
    .byte 0xf2, 0x0f, 0x01, 0xff    # pvalidate
    jc not_validated
    test eax, eax
    jnz not_validated
    # Lines of the page that the cache holds from before must not be used (CVE-2025-38560).
    mov eax, dword ptr [esp]
    mov eax, dword ptr [esp + 0xffc]
    add esp, 0x1000
    cmp esp, {SCRATCH_END}
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
    # The tables' six pages, with the entries for the first 2 MiB and for the last 2 MiB below 4 GiB. A TDX host
    # chose what was in them.
    mov edi, {PAGE_TABLES}
    xor eax, eax
    mov ecx, 6 * 1024
    cld
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

enable_paging:
    # Bits are added to what is there: a TDX module does not let go of some. PAE, OSFXSR, OSXMMEXCPT.
    mov eax, cr4
    or eax, 0x620
    mov cr4, eax
    mov eax, {PAGE_TABLES}
    mov cr3, eax
    # EFER.LME, written only if it is not set. A TDX module set it, and EFER is not even read there.
    test ebx, ebx
    jz long_mode_enabled
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
    # A TDX module can be asked to end the guest in 64-bit mode only.
    cmp edi, {TAG_SNP}
    jne unknown_machine
    mov eax, ebx
    xor edx, edx
    mov ecx, 0xc0010130             # the GHCB's MSR
    wrmsr
    .byte 0xf3, 0x0f, 0x01, 0xd9    # vmgexit
    ud2

.code64
entry64:
    mov eax, 0x18
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov ss, eax
    test esi, esi
    jnz other_cpu
    mov esp, {STACK}
    mov edi, ebx
    call start
    ud2

other_cpu:
    # One of a TDX guest, which helps to take memory into use and then waits for the kernel. More of them than were
    # measured have nothing to do here.
    mov ebx, esi
    cmp ebx, dword ptr [rip + stage0_cpus]
    jae wait_for_kernel
    # First to be counted, then to look: the first CPU closes first, then counts.
    lock inc dword ptr [rip + stage0_helping]
    cmp dword ptr [rip + stage0_open], 0
    je left
    mov eax, ebx
    imul eax, eax, {HELPER_STACK_SIZE}
    lea rsp, [rax + {HELPER_STACKS}]
    call help
left:
    lock dec dword ptr [rip + stage0_helping]

wait_for_kernel:
    # The mailbox (ACPI 6.5, section 5.2.12.19): command, APIC id, address. The APIC id is the CPU's index, which the
    # module vouches for. There is no stack: what it was belongs to the kernel.
    mov edx, {MAILBOX}
    pause
    cmp word ptr [rdx], 1
    jne wait_for_kernel
    cmp dword ptr [rdx + 4], ebx
    jne wait_for_kernel
    mov rax, qword ptr [rdx + 8]
    # The kernel waits for this.
    mov word ptr [rdx], 0
    jmp rax

# Ends a TDX guest: EDI is the code, RSI leads to 64 bytes of message.
.globl report_fatal_error
report_fatal_error:
    mov r12d, edi
    mov rax, rsi
    mov r14, qword ptr [rax]
    mov r15, qword ptr [rax + 8]
    mov rbx, qword ptr [rax + 16]
    mov rdi, qword ptr [rax + 24]
    mov rsi, qword ptr [rax + 32]
    mov r8, qword ptr [rax + 40]
    mov r9, qword ptr [rax + 48]
    mov rdx, qword ptr [rax + 56]
    mov eax, {VP_VMCALL}
    mov ecx, {REPORT_FATAL_ERROR_REGISTERS}
    xor r10d, r10d
    mov r11d, {REPORT_FATAL_ERROR}
    xor r13d, r13d
    .byte 0x66, 0x0f, 0x01, 0xcc    # tdcall
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
no_idt:
    .word 0
    .long 0
.balign 4
entered:
    .long 0

# What the rest of stage0 shares with this file (unsafe_machine/cpus.rs).
.globl stage0_tag, stage0_released, stage0_open, stage0_helping, stage0_cpus, stage0_work
stage0_tag:
    .long 0
stage0_released:
    .long 0
stage0_open:
    .long 0
stage0_helping:
    .long 0
stage0_cpus:
    .long 0
.balign 8
stage0_work:
    .quad 0
