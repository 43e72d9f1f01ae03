$Journal = Join-Path $State 'journal.json'
{% if dotenv_ps %}$Names = @({{ ", ".join(ps(name) for name in dotenv) }})
{% end %}
$Merge = @'
{% include "merge.js" %}
'@

# Change the fields named in $Edit (or "undo"). This is node's work: PowerShell's own JSON commands rewrite dates and
# lists of other settings.
function Edit-PoolJson([string] $Edit) {
    if (-not (Get-Command node -ErrorAction SilentlyContinue)) {
        throw "pool-server: node is not here to change $File without harm; set it up by hand, as the page shows"
    }
    $env:POOL_FILE = $File; $env:POOL_JOURNAL = $Journal; $env:POOL_EDIT = $Edit
    try {
        $Merge | & node '-'
        if ($LASTEXITCODE -ne 0) { throw "pool-server: $File was not changed" }
    }
    finally { foreach ($name in 'POOL_FILE', 'POOL_JOURNAL', 'POOL_EDIT') { Remove-Item -LiteralPath "Env:$name" } }
}
