{% autoescape None %}& {
{% include "common.ps1" %}
{% include "check.ps1" %}
$Usual = Join-Path $HOME '.codex'
$Codex = [System.IO.Path]::GetFullPath($(if ($env:CODEX_HOME) { $env:CODEX_HOME } else { $Usual }))
$State = Get-PoolState $Codex $Usual
{% include "codex_edit.ps1" %}
function Get-PoolTable([string] $Line) { if ($Line -match '^\s*\[\s*([^\]\[]+?)\s*\]\s*(#.*)?$') { return $Matches[1] } return '' }
function Get-PoolKey([string] $Line) { if ($Line -match '^\s*([A-Za-z0-9_."-]+)\s*=') { return $Matches[1].Replace('"', '') } return '' }
function Get-PoolOff([string] $Name, [string] $Dotted, [string] $Tail) {
    if ($Name -eq 'analytics') { return ,@("${Dotted}enabled = false$Tail") }
    return ,@("${Dotted}apps = false$Tail", "${Dotted}plugins = false$Tail")
}

# Top-level keys must stand before the first table, so the pool's lines go to the very top. Where you have a table of
# the same name already, they go into it; keys of yours with the same name are set aside.
function Add-PoolToml([string[]] $Lines) {
    $aside = @('openai_base_url', 'chatgpt_base_url', 'model_provider', 'forced_login_method', 'cli_auth_credentials_store',
        'analytics.enabled', 'features.apps', 'features.plugins')
    $table = @{}; $below = @{}; $inline = @{}; $dotted = @{}
    $place = ''
    foreach ($line in $Lines) {
        $name = Get-PoolTable $line
        if ($name) {
            $place = $name
            if ($name.Contains('.')) { $below[$name.Split('.')[0]] = $true } else { $table[$name] = $true }
        }
        elseif (-not $place) {
            $key = Get-PoolKey $line
            if ($key.Contains('.')) { $dotted[$key.Split('.')[0]] = $true } elseif ($key) { $inline[$key] = $true }
        }
    }
    $out = New-Object System.Collections.Generic.List[string]
    $out.Add('# pool-server: begin')
    $out.Add('openai_base_url = ' + {{ ps(toml(openai_url)) }})
    $out.Add('chatgpt_base_url = ' + {{ ps(toml(chatgpt_url)) }})
    foreach ($name in 'analytics', 'features') {
        if ($dotted[$name] -or -not ($table[$name] -or $below[$name] -or $inline[$name])) {
            foreach ($line in (Get-PoolOff $name "$name." '')) { $out.Add($line) }
        }
    }
    $out.Add('# pool-server: end')
    $place = ''
    foreach ($line in $Lines) {
        $name = Get-PoolTable $line
        if ($name) {
            $place = $name
            $out.Add($line)
            if ($name -eq 'analytics' -or $name -eq 'features') {
                foreach ($more in (Get-PoolOff $name '' '  # pool-server')) { $out.Add($more) }
            }
            continue
        }
        $key = Get-PoolKey $line
        $full = $key
        if ($place) { $full = "$place.$key" }
        if ($key -and ($aside -ccontains $full)) { $out.Add('# pool-server kept: ' + $line) } else { $out.Add($line) }
    }
    foreach ($name in 'analytics', 'features') {
        if ($below[$name] -and -not ($table[$name] -or $dotted[$name])) {
            $out.Add('# pool-server: begin')
            $out.Add("[$name]")
            foreach ($line in (Get-PoolOff $name '' '')) { $out.Add($line) }
            $out.Add('# pool-server: end')
        }
    }
    return ,[string[]] $out.ToArray()
}

$undo = @'
& {
{% include "common.ps1" %}
$State = '__POOL_State__'
$Codex = '__POOL_Codex__'
{% include "codex_edit.ps1" %}
$configBefore = Join-Path $State 'config.toml.before'
$configAbsent = Join-Path $State 'config.toml.absent'
$authBefore = Join-Path $State 'auth.json.before'
if (-not ((Test-Path -LiteralPath $configBefore) -or (Test-Path -LiteralPath $configAbsent))) {
    throw "pool-server: nothing to undo here: the pool has set nothing up in $Codex"
}
if (Test-Path -LiteralPath $Config) {
    $lines = Remove-PoolLines (Read-PoolLines $Config)
    if ($lines.Count -eq 0 -and (Test-Path -LiteralPath $configAbsent)) { Remove-Item -LiteralPath $Config }
    else { Write-PoolLines $Config $lines }
}
elseif (Test-Path -LiteralPath $configBefore) { Restore-PoolOriginal $Config $configBefore }
if (Test-PoolLogin) {
    if (Test-Path -LiteralPath $authBefore) { Restore-PoolOriginal $Auth $authBefore } else { Remove-Item -LiteralPath $Auth }
}
elseif (-not (Test-Path -LiteralPath $Auth) -and (Test-Path -LiteralPath $authBefore)) { Restore-PoolOriginal $Auth $authBefore }
Write-Host 'Codex is as it was before the pool.'
{% if key_ends %}Write-Host {{ ps(key_ends) }}
{% end %}foreach ($name in 'config.toml.before', 'config.toml.absent', 'auth.json.absent', 'undo.ps1') {
    $path = Join-Path $State $name
    if (Test-Path -LiteralPath $path) { Remove-Item -LiteralPath $path }
}
foreach ($kept in (Get-ChildItem -LiteralPath $State)) { Write-Host "A sign-in that was here earlier is kept in $($kept.FullName)" }
if (-not (Get-ChildItem -LiteralPath $State)) { Remove-Item -LiteralPath $State }
}
'@
Write-PoolText (Join-Path $State 'undo.ps1') (Set-PoolPlaces $undo @{ State = $State; Codex = $Codex })
Save-PoolOriginal $Config
Write-PoolLines $Config (Add-PoolToml (Remove-PoolLines (Read-PoolLines $Config)))
$before = Join-Path $State 'auth.json.before'
if ((Test-Path -LiteralPath $Auth) -and -not (Test-PoolLogin) -and (Test-Path -LiteralPath $before)) {
    Move-Item -LiteralPath $before -Destination (Join-Path $State 'auth.json.older') -Force
}
if (-not (Test-PoolLogin)) { Save-PoolOriginal $Auth }
Write-PoolText $Auth ({{ ps(auth_json) }} + "`n")
Write-Host {{ ps("Codex now goes through " + pool + ". Try it:  " + then) }}
Write-Host "Your former sign-in and settings are kept in $State; take everything back with:  powershell -ExecutionPolicy Bypass -File `"$State\undo.ps1`""
Test-PoolReady
Show-PoolConflicts @('CODEX_API_KEY', 'CODEX_ACCESS_TOKEN')
}
