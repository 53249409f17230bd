process HYENA_CLASSIFYSPECIES {
    tag "$meta.id"
    label 'process_medium'

    conda "${moduleDir}/environment.yml"
    container "${ workflow.containerEngine == 'singularity' && !task.ext.singularity_pull_docker_container ?
        'https://depot.galaxyproject.org/singularity/hyenacli:0.1.0--pyhdfd78af_0' :
        'quay.io/biocontainers/hyenacli:0.1.0--pyhdfd78af_0' }"

    input:
    tuple val(meta), path(contigs)
    tuple val(meta2), path(model)

    output:
    tuple val(meta), path("${prefix}.${suffix}"), emit: predictions
    tuple val("${task.process}"), val('hyena'), eval("hyena --version | sed 's/hyena //'"), emit: versions_hyena, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    suffix = task.ext.suffix ?: 'tsv'
    """
    hyena classify-species predict ${contigs} -m ${model} -o ${prefix}.${suffix} -@ ${task.cpus} ${args}
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    suffix = task.ext.suffix ?: 'tsv'
    """
    touch ${prefix}.${suffix}
    """
}
