{% autoescape None %}& {
{% include "common.ps1" %}
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
{% include "codex_edit.ps1" %}
if (Test-Path -LiteralPath $Config) {
    $lines = Remove-PoolLines (Read-PoolLines $Config)
    if ($lines.Count -eq 0 -and (Test-Path -LiteralPath (Join-Path $State 'config.toml.absent'))) { Remove-Item -LiteralPath $Config }
    else { Write-PoolLines $Config $lines }
}
if (Test-PoolLogin) {
    $before = Join-Path $State 'auth.json.before'
    if (Test-Path -LiteralPath $before) { Copy-Item -LiteralPath $before -Destination $Auth -Force } else { Remove-Item -LiteralPath $Auth }
}
Remove-Item -LiteralPath $State -Recurse -Force
Write-Host 'Codex is as it was before the pool.'
}
'@
Write-PoolText (Join-Path $State 'undo.ps1') $undo
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
Show-PoolConflicts @('CODEX_API_KEY', 'CODEX_ACCESS_TOKEN')
}
