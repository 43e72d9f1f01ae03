{% autoescape None %}& {
{% include "common.ps1" %}
{% include "check.ps1" %}
$File = [System.IO.Path]::GetFullPath(({{ file_ps }}))
{% if dotenv_ps %}$Dotenv = [System.IO.Path]::GetFullPath(({{ dotenv_ps }}))
{% end %}$State = Get-PoolState $File ({{ usual_ps }})
{% include "json_edit.ps1" %}
$undo = {{ encoded_undo }}
$undo = [System.Text.Encoding]::UTF8.GetString([System.Convert]::FromBase64String($undo))
Write-PoolText (Join-Path $State 'undo.ps1') (Set-PoolPlaces $undo @{ State = $State; File = $File{% if dotenv_ps %}; Dotenv = $Dotenv{% end %} })
Save-PoolOriginal $File
Edit-PoolJson {{ ps(edit) }}
{% if dotenv_ps %}Save-PoolOriginal $Dotenv
$out = New-Object System.Collections.Generic.List[string]
foreach ($line in (Remove-PoolLines (Read-PoolLines $Dotenv))) {
    $name = ($line -replace '^\s*(export\s+)?', '') -replace '\s*=.*$', ''
    if ($Names -ccontains $name) { $out.Add('# pool-server kept: ' + $line) } else { $out.Add($line) }
}
$out.Add('# pool-server: begin')
{% for name, value in dotenv.items() %}{% if value is not None %}$out.Add({{ ps(name + "=" + value) }})
{% end %}{% end %}$out.Add('# pool-server: end')
Write-PoolLines $Dotenv $out.ToArray()
{% end %}Write-Host {{ ps(label + " now goes through " + pool + ". Try it:  " + then) }}
{% for line in hints %}Write-Host {{ ps(line) }}
{% end %}Write-Host "What was there before is kept in $State; take everything back with:  powershell -ExecutionPolicy Bypass -File `"$State\undo.ps1`""
Test-PoolReady
Show-PoolConflicts @({{ ", ".join(ps(name) for name in exported) }})
}
