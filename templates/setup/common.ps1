# {{ label }} for {{ pool }}. Run it as often as you like: your other settings are kept, and what is changed is
# written down first. To take it back, run undo.ps1 in the folder named at the end.
$ErrorActionPreference = 'Stop'

# Where what was there before is kept: a folder for each place the settings may be.
function Get-PoolState([string] $Place, [string] $Usual) {
    $base = Join-Path $env:LOCALAPPDATA ('pool-server\' + {{ ps(cli) }})
    if ($Place -eq $Usual) { return $base }
    $hash = [System.Security.Cryptography.SHA256]::Create().ComputeHash([System.Text.Encoding]::UTF8.GetBytes($Place))
    return $base + '-' + [System.BitConverter]::ToString($hash).Replace('-', '').Substring(0, 12)
}

# An undo knows its places by itself: it may run in another shell, with other variables.
function Set-PoolPlaces([string] $Text, [hashtable] $Places) {
    foreach ($name in $Places.Keys) { $Text = $Text.Replace("__POOL_$($name)__", ([string] $Places[$name]).Replace("'", "''")) }
    return $Text
}

# Whether a file is again what was kept of it; only then may the copy go.
function Restore-PoolOriginal([string] $Path, [string] $Copy) {
    Copy-Item -LiteralPath $Copy -Destination $Path -Force
    if ((Get-FileHash -LiteralPath $Path).Hash -ne (Get-FileHash -LiteralPath $Copy).Hash) {
        throw "pool-server: $Path could not be put back; what was there before is in $Copy"
    }
    Remove-Item -LiteralPath $Copy
}

function Write-PoolText([string] $Path, [string] $Text) {
    $folder = Split-Path -Parent $Path
    if (-not (Test-Path -LiteralPath $folder)) { New-Item -ItemType Directory -Path $folder -Force | Out-Null }
    [System.IO.File]::WriteAllText("$Path.pool-server", $Text, (New-Object System.Text.UTF8Encoding($false)))
    Move-Item -LiteralPath "$Path.pool-server" -Destination $Path -Force
}

function Read-PoolLines([string] $Path) {
    if (Test-Path -LiteralPath $Path) { return ,[string[]] [System.IO.File]::ReadAllLines($Path) }
    return ,[string[]] @()
}

# The first sight of a file before the pool touched it, kept until the undo.
function Save-PoolOriginal([string] $Path) {
    $copy = Join-Path $State (Split-Path -Leaf $Path)
    if (-not (Test-Path -LiteralPath $State)) { New-Item -ItemType Directory -Path $State -Force | Out-Null }
    if ((Test-Path -LiteralPath "$copy.before") -or (Test-Path -LiteralPath "$copy.absent")) { return }
    if (Test-Path -LiteralPath $Path) { Copy-Item -LiteralPath $Path -Destination "$copy.before" }
    else { Write-PoolText "$copy.absent" '' }
}

function Show-PoolConflicts([string[]] $Names) {
    foreach ($name in $Names) {
        if (Test-Path -LiteralPath "Env:$name") {
            Write-Host "Careful: $name is set in this shell and would win over the pool. Remove it from your environment variables."
        }
    }
}

# Lines without the pool's own; lines of yours that were set aside come back.
function Remove-PoolLines([string[]] $Lines) {
    $kept = New-Object System.Collections.Generic.List[string]
    $skip = $false
    foreach ($line in $Lines) {
        if ($line.StartsWith('# pool-server: begin')) { $skip = $true; continue }
        if ($line.StartsWith('# pool-server: end')) { $skip = $false; continue }
        if ($skip) { continue }
        if ($line.StartsWith('# pool-server kept: ')) { $kept.Add($line.Substring(20)); continue }
        if ($line.EndsWith('  # pool-server')) { continue }
        $kept.Add($line)
    }
    return ,[string[]] $kept.ToArray()
}

function Write-PoolLines([string] $Path, [string[]] $Lines) {
    $text = ''
    if ($Lines.Count -gt 0) { $text = ($Lines -join "`n") + "`n" }
    Write-PoolText $Path $text
}
